package lists

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
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
	_, _, err := parseEntry(bytes.TrimSpace(text))
	return err == nil
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
	var table csvTable
	for {
		line, long, err := nextLine(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		line = bytes.TrimSpace(line)
		switch {
		case long:
			c.edition.Lines++
			c.junk(line)
		case len(line) == 0:
		case isComment(line):
			c.edition.Lines++
		default:
			c.edition.Lines++
			switch c.edition.Format {
			case DShield:
				c.takeDShield(line)
			case Ipsum:
				c.takeIpsum(line)
			case CSV:
				c.takeCSV(&table, line)
			default:
				c.take(firstWord(line))
			}
		}
		if err != nil {
			return nil
		}
	}
}

// nextLine reads a line without its end; long says that it is longer than [MaxLine],
// and was left out but for its beginning. The bytes are valid until the next call.
func nextLine(r *bufio.Reader) (line []byte, long bool, err error) {
	line, err = r.ReadSlice('\n')
	if len(line) > MaxLine {
		long = true
	}
	first := line
	for errors.Is(err, bufio.ErrBufferFull) {
		first = bytes.Clone(first[:min(len(first), MaxLine)])
		_, err = r.ReadSlice('\n')
	}
	if long {
		first = first[:min(len(first), MaxLine)]
	}
	return first, long, err
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
	if len(fields) < 3 {
		c.junk(line)
		return
	}
	start, end, bits := string(bytes.TrimSpace(fields[0])), string(bytes.TrimSpace(fields[1])), string(bytes.TrimSpace(fields[2]))
	if c.sound == 0 && strings.EqualFold(start, "start") {
		return
	}
	entry := []byte(start + "/" + bits)
	from, _, err := parseEntry(entry)
	if err != nil || from.Masked().Addr().String() != start || lastOf(from).String() != end {
		c.junk(line) // its columns do not agree
		return
	}
	c.take(entry)
}

// takeIpsum takes `address TAB count`, from the minimum on.
func (c *collector) takeIpsum(line []byte) {
	fields := bytes.Fields(line)
	if len(fields) != 2 {
		c.junk(line)
		return
	}
	count, err := strconv.ParseFloat(string(fields[1]), 64)
	switch {
	case err != nil:
		c.junk(line)
	case count < c.o.Minimum:
		c.sound++
		c.edition.Low++
	default:
		c.take(fields[0])
	}
}
