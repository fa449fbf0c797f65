package neverban

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// Limits of a list that comes from outside.
const (
	maxListEntries = 100_000
	maxListLine    = 1000
	// A pack may shield networks, and must not be able to shield everybody.
	shortest4, shortest6 = 8, 19
)

// SourceCaution marks an address that many people share.
const SourceCaution Source = "shared"

// ReadList reads a list of prefixes, a line each: a prefix or address, perhaps
// `until 2026-03-01T00:00:00Z`, perhaps a comment after '#'. It serves packs
// (targets that others may not ban) and lists of addresses that many people share,
// whose sections name a kind ([section]). All faulty lines are in the error, and a list with one is not used.
func ReadList(r io.Reader, source Source) ([]Entry, error) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, maxListLine), maxListLine)
	var list []Entry
	var faults []error
	var part section
	for n := 1; s.Scan(); n++ {
		text, comment, _ := strings.Cut(s.Text(), "#")
		if source == SourceCaution && strings.HasPrefix(text, "[") {
			var err error
			if part, err = parseSection(strings.TrimSpace(text)); err != nil {
				faults = append(faults, fmt.Errorf("line %d: %w", n, err))
			}
			continue
		}
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		e, err := listEntry(fields)
		if err != nil {
			if len(faults) < 20 { // who wrote twenty faults wrote something else
				faults = append(faults, fmt.Errorf("line %d: %w", n, err))
			}
			continue
		}
		e.Source, e.Reason, e.Kind, e.From = source, clipText(strings.TrimSpace(comment)), part.kind, part.from
		if e.Reason == "" {
			e.Reason = part.name
		}
		if len(list) == maxListEntries {
			return nil, fmt.Errorf("the list has more than %d entries", maxListEntries)
		}
		list = append(list, e)
	}
	if err := s.Err(); err != nil {
		faults = append(faults, fmt.Errorf("reading the list: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return list, nil
}

func listEntry(fields []string) (e Entry, err error) {
	t, err := ban.ParseTarget(fields[0])
	if err != nil {
		return e, err
	}
	p, ok := t.Prefix()
	if !ok {
		return e, fmt.Errorf("%s: %w", t, ban.ErrTarget)
	}
	if p.Addr().Is4() && p.Bits() < shortest4 || p.Addr().Is6() && p.Bits() < shortest6 {
		return e, fmt.Errorf("%s is too wide: at least /%d, or /%d for IPv6", p, shortest4, shortest6)
	}
	e.Prefix = p
	switch {
	case len(fields) == 1:
	case len(fields) == 3 && fields[1] == "until":
		if e.Until, err = time.Parse(time.RFC3339, fields[2]); err != nil {
			return e, fmt.Errorf("%q is no time: write 2026-03-01T00:00:00Z", clipText(fields[2]))
		}
	default:
		return e, fmt.Errorf("unexpected %q after the prefix", clipText(strings.Join(fields[1:], " ")))
	}
	return e, nil
}

// Alive leaves out the entries that are over.
func Alive(entries []Entry, now time.Time) []Entry {
	var list []Entry
	for _, e := range entries {
		if e.Until.IsZero() || e.Until.After(now) {
			list = append(list, e)
		}
	}
	return list
}

// clipText bounds foreign text and takes out control characters.
func clipText(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most]
	}
	return text([]byte(s))
}
