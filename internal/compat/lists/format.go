package lists

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
)

// A Format is how a list is written.
type Format string

// The formats.
const (
	// Lines has an address, a prefix or a range (FROM-TO) at the beginning of each line;
	// '#' and ';' begin comments, and words behind the address are one.
	Lines Format = "lines"
	// JSON is a document, or one in each line, with the address under a key.
	JSON Format = "json"
	// DShield has start, end and the prefix's length between tabs.
	DShield Format = "dshield"
	// Ipsum has an address and the number of lists that name it between tabs.
	Ipsum Format = "ipsum"
	// CSV has the address in a column.
	CSV Format = "csv"
)

// formats are the names that a configuration may use: those above, and the names of
// lists that are written so.
var formats = map[string]Format{
	"": "", "lines": Lines, "json": JSON, "dshield": DShield, "ipsum": Ipsum, "csv": CSV,
	"drop": Lines, "drop-json": JSON, "blocklist.de": Lines, "firehol": Lines, "netset": Lines, "ipset": Lines, "et": Lines, "hosts": Lines,
	"abuseipdb": JSON, "turris": CSV,
}

// ParseFormat reads a format's name; "" stays "".
func ParseFormat(s string) (Format, error) {
	if f, ok := formats[s]; ok {
		return f, nil
	}
	return "", fmt.Errorf("%.32q is no format: want lines, json, dshield, ipsum or csv", s)
}

// detect finds the format of a list by its beginning. A list that is like none of the
// others is of lines.
func detect(head []byte) Format {
	looked := 0
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || isComment(line) {
			continue
		}
		if line[0] == '{' || line[0] == '[' {
			return JSON
		}
		if looked++; looked > 20 {
			break
		}
		tabs := bytes.Split(line, []byte{'\t'})
		switch {
		case len(tabs) >= 3 && isAddress(tabs[0]) && isAddress(tabs[1]):
			return DShield
		case len(tabs) == 2 && isAddress(tabs[0]) && isNumber(tabs[1]):
			return Ipsum
		case bytes.IndexByte(line, ',') > 0:
			return CSV
		case isAddress(firstWord(line)):
			return Lines
		}
	}
	return Lines
}

func isComment(line []byte) bool {
	return line[0] == '#' || line[0] == ';' || bytes.HasPrefix(line, []byte("//"))
}

func isAddress(text []byte) bool {
	_, err := parseEntry(bytes.TrimSpace(text))
	return err == nil
}

// isHostName says whether a text is labels with dots between them, one of which has a letter.
func isHostName(text []byte) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return len(text) < 256 && bytes.IndexByte(text, '.') > 0 && bytes.ContainsAny(text, letters) && len(bytes.Trim(text, letters+"0123456789-_.")) == 0
}

func isNumber(text []byte) bool {
	_, err := strconv.ParseFloat(string(bytes.TrimSpace(text)), 64)
	return err == nil
}

// read hands each entry of a list on.
func (c *collector) read(r *bufio.Reader) error {
	if c.edition.Format == JSON {
		return c.readJSON(r)
	}
	t := columns{o: c.o}
	if c.edition.Format == Ipsum {
		t = columns{known: true, address: 0, score: 1}
	}
	for {
		line, err := nextLine(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if long := len(line) > MaxLine; long {
			c.edition.Lines++
			c.junk(line)
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			c.edition.Lines++
			if !isComment(line) {
				c.takeLine(&t, line)
			}
		}
		if err != nil {
			return nil
		}
	}
}

func (c *collector) takeLine(t *columns, line []byte) {
	switch c.edition.Format {
	case DShield:
		c.takeDShield(line)
	case Ipsum:
		c.takeRow(t, line, bytes.Fields(line))
	case CSV:
		c.takeRow(t, line, splitCSV(line))
	default:
		c.take(firstWord(line))
	}
}

// nextLine reads a line with its end; of one that is longer than [MaxLine] it gives the
// beginning, longer than that. The bytes are valid until the next call.
func nextLine(r *bufio.Reader) (line []byte, err error) {
	line, err = r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line[:MaxLine+1])
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
	}
	return line, err
}

// firstWord gives a line up to the first blank or comment. A range that is written
// with blanks is one word.
func firstWord(line []byte) []byte {
	end := bytes.IndexAny(line, " \t;#")
	if end < 0 {
		return line
	}
	word, rest := line[:end], bytes.TrimLeft(line[end:], " \t")
	if after, ok := bytes.CutPrefix(rest, []byte("-")); ok {
		if second := firstBlank(bytes.TrimLeft(after, " \t")); isAddress(second) {
			return slices.Concat(word, []byte("-"), second)
		}
	}
	return word
}

func firstBlank(b []byte) []byte {
	if end := bytes.IndexAny(b, " \t;#"); end >= 0 {
		return b[:end]
	}
	return b
}

// takeDShield takes `start TAB end TAB bits …`. The line of the columns' names is none.
func (c *collector) takeDShield(line []byte) {
	fields := bytes.Split(line, []byte{'\t'})
	for i := range fields {
		fields[i] = bytes.TrimSpace(fields[i])
	}
	if c.sound == 0 && bytes.EqualFold(fields[0], []byte("start")) {
		return
	}
	if len(fields) >= 3 {
		entry := slices.Concat(fields[0], []byte("/"), fields[2])
		p, err := netip.ParsePrefix(string(entry))
		if err == nil && p.Masked().Addr().String() == string(fields[0]) && lastOf(p).String() == string(fields[1]) {
			c.take(entry)
			return
		}
	}
	c.junk(line) // its columns do not agree
}
