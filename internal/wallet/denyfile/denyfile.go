// Package denyfile reads and writes lists of denied wallets as people exchange
// them: CSV, JSON and one a line.
package denyfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"banmesh/internal/wallet"
)

const (
	// maxFile bounds a file: some 100,000 entries of the longest form.
	maxFile = 16 << 20
	// maxEntries bounds the entries: each is a signed claim of its own.
	maxEntries = 100_000
	// maxFaults bounds the faults that are told of one file.
	maxFaults = 20
	// MaxFor is the longest time that an entry may last: feeds carry no longer
	// claim.
	MaxFor = 90 * 24 * time.Hour
)

// A Format is how a list is written.
type Format int

// The formats.
const (
	Plain Format = iota
	CSV
	JSON
)

// ParseFormat reads "plain", "csv" or "json".
func ParseFormat(s string) (Format, error) {
	for f, name := range [...]string{Plain: "plain", CSV: "csv", JSON: "json"} {
		if s == name {
			return Format(f), nil
		}
	}
	return 0, fmt.Errorf("%.32q is not csv, json or plain", s)
}

// An Entry is one denied wallet. Reason is "" and Until zero where the list
// does not say.
type Entry struct {
	Wallet [20]byte
	Reason string
	Until  time.Time
}

// Read reads a list. Its error joins every fault with its line, up to twenty,
// as "LINE: text"; then there are no entries. Of a wallet that stands twice the
// last entry counts.
func Read(r io.Reader, f Format, now time.Time) ([]Entry, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("1: %w", err)
	case len(b) > maxFile:
		return nil, fmt.Errorf("1: the list has more than %d MB", maxFile>>20)
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // some spreadsheets begin so
	l := &reader{now: now, index: map[[20]byte]int{}}
	switch f {
	case CSV:
		l.csv(b)
	case JSON:
		l.json(b)
	default:
		l.plain(b)
	}
	switch {
	case len(l.faults) > 0:
		return nil, errors.Join(l.faults...)
	case len(l.entries) == 0:
		return nil, errors.New("1: the list names no wallet")
	}
	return l.entries, nil
}

// reader gathers entries and faults.
type reader struct {
	now     time.Time
	entries []Entry
	index   map[[20]byte]int // of a wallet in entries
	faults  []error
}

// full says that there is no use in reading on.
func (l *reader) full() bool { return len(l.faults) >= maxFaults }

func (l *reader) fault(line int, format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf("%d: "+format, append([]any{line}, args...)...))
}

// add checks and keeps an entry.
func (l *reader) add(line int, address, reason, until string) {
	w, err := wallet.Parse(strings.TrimSpace(address))
	if err != nil {
		l.fault(line, "%w", err)
		return
	}
	e := Entry{Wallet: w, Reason: strings.TrimSpace(reason)}
	if until = strings.TrimSpace(until); until != "" {
		e.Until, err = time.Parse(time.RFC3339, until)
		switch {
		case err != nil:
			l.fault(line, "until: %.64q is not a time as 2026-12-31T00:00:00Z", until)
			return
		case !e.Until.After(l.now):
			l.fault(line, "until: %s is over", until)
			return
		case e.Until.Sub(l.now) > MaxFor:
			l.fault(line, "until: %s is more than 90 days away", until)
			return
		}
	}
	if i, ok := l.index[w]; ok {
		l.entries[i] = e
		return
	}
	if len(l.entries) == maxEntries {
		l.fault(line, "the list has more than %d wallets", maxEntries)
		return
	}
	l.index[w] = len(l.entries)
	l.entries = append(l.entries, e)
}

func (l *reader) plain(b []byte) {
	line := 0
	for text := range bytes.Lines(b) {
		line++
		s, _, _ := strings.Cut(string(text), "#")
		if s = strings.TrimSpace(s); s != "" {
			l.add(line, s, "", "")
		}
		if l.full() {
			return
		}
	}
}

func (l *reader) csv(b []byte) {
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord = -1
	r.Comment = '#'
	heading, err := r.Read()
	if err != nil {
		l.fault(1, "no heading: %w", err)
		return
	}
	for i, name := range heading {
		heading[i] = strings.ToLower(strings.TrimSpace(name))
	}
	column := func(name string) int { return slices.Index(heading, name) }
	if column("address") < 0 {
		l.fault(1, "the heading has no column address")
		return
	}
	for !l.full() {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			l.fault(csvLine(err), "%w", err)
			return
		}
		line, _ := r.FieldPos(0)
		if len(record) != len(heading) {
			l.fault(line, "the line has %d columns, the heading %d", len(record), len(heading))
			continue
		}
		field := func(name string) string {
			if i := column(name); i >= 0 {
				return record[i]
			}
			return ""
		}
		l.add(line, field("address"), field("reason"), field("until"))
	}
}

func csvLine(err error) int {
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return e.Line
	}
	return 1
}

// jsonEntry is an object of a JSON list. Other members, such as a comment, are
// the author's own.
type jsonEntry struct {
	Address string `json:"address"`
	Reason  string `json:"reason,omitempty"`
	Until   string `json:"until,omitempty"`
}

func (l *reader) json(b []byte) {
	d := json.NewDecoder(bytes.NewReader(b))
	line := func() int { return 1 + bytes.Count(b[:d.InputOffset()], []byte("\n")) }
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		l.fault(1, "not a JSON array")
		return
	}
	for d.More() && !l.full() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			l.fault(line(), "%w", err)
			return
		}
		var e jsonEntry
		var err error
		if raw[0] == '"' {
			err = json.Unmarshal(raw, &e.Address)
		} else {
			err = json.Unmarshal(raw, &e)
		}
		if err != nil {
			l.fault(line(), "%w", err)
			continue
		}
		l.add(line(), e.Address, e.Reason, e.Until)
	}
	if l.full() {
		return
	}
	if _, err := d.Token(); err != nil {
		l.fault(line(), "the array does not end")
		return
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		l.fault(line(), "more behind the array")
	}
}

// Write writes a list that [Read] reads back. Addresses are in EIP-55 spelling.
func Write(w io.Writer, f Format, entries []Entry) error {
	out := bufio.NewWriter(w)
	switch f {
	case CSV:
		c := csv.NewWriter(out)
		_ = c.Write([]string{"address", "reason", "until"}) // Error tells
		for _, e := range entries {
			_ = c.Write([]string{wallet.Format(e.Wallet), e.Reason, untilText(e)})
		}
		c.Flush()
		if err := c.Error(); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	case JSON:
		list := make([]jsonEntry, 0, len(entries))
		for _, e := range entries {
			list = append(list, jsonEntry{wallet.Format(e.Wallet), e.Reason, untilText(e)})
		}
		j := json.NewEncoder(out)
		j.SetIndent("", "  ")
		if err := j.Encode(list); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	default:
		for _, e := range entries {
			fmt.Fprintln(out, wallet.Format(e.Wallet))
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

func untilText(e Entry) string {
	if e.Until.IsZero() {
		return ""
	}
	return e.Until.UTC().Format(time.RFC3339)
}
