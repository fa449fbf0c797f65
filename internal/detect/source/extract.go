package source

import (
	"bytes"
	"slices"

	"banmesh/internal/detect/source/journalfile"
)

const (
	// maxInterned bounds the texts that are kept to share them between lines.
	maxInterned = 4096
	// knownFields is the size of the table of fields that were looked at. Most
	// fields of an entry are those of the one before it, at the same place in
	// the file. A power of two.
	knownFields = 4096
)

// An extractor makes lines of journal entries. It looks at each field of an
// entry once and keeps nothing of entries that no match wants.
type extractor struct {
	terms    []term
	byLength map[int][]int // terms by the length of "FIELD=value"
	longest  int
	matches  [][][][]int         // for each match the alternatives, of each the fields, of each the terms
	has      []bool              // which terms the entry at hand has
	count    uint64              // files that were given a key
	keys     [knownFields]uint64 // of the known fields: place and file
	briefs   [knownFields]brief
	known    [knownFields]knownField
	texts    map[string]string
	message  []byte
	matched  []int
}

// A fieldKind is what a field is to a line.
type fieldKind uint8

const (
	fieldOther fieldKind = iota
	fieldMessage
	fieldTag
	fieldContainer
	fieldCommand
	fieldUnit
	fieldUserUnit
	fieldHost
	fieldPID
	fieldSyslogPID
	fieldSource
	fieldKinds
)

// prefixes are the names of the kinds' fields.
var prefixes = [fieldKinds]string{
	fieldMessage: "MESSAGE=", fieldTag: "SYSLOG_IDENTIFIER=", fieldContainer: "CONTAINER_NAME=", fieldCommand: "_COMM=",
	fieldUnit: "_SYSTEMD_UNIT=", fieldUserUnit: "_SYSTEMD_USER_UNIT=", fieldHost: "_HOSTNAME=", fieldPID: "_PID=",
	fieldSyslogPID: "SYSLOG_PID=", fieldSource: "_SOURCE_REALTIME_TIMESTAMP=",
}

// A knownField is what was found out of the field at one place of a file.
type knownField struct {
	text   string // of names
	number uint64 // of process ids and times
}

// A brief is the part of it that every field is asked for, kept apart so that
// the table stays in the processor's cache.
type brief struct {
	term int32 // the term that it is, or -1
	kind fieldKind
}

// fileShift leaves room for offsets of 256 TiB in a key; journald's files end
// at 4 GiB. Keys are never 0: files count from 1.
const fileShift = 48

func newExtractor(matches []match) *extractor {
	x := &extractor{byLength: map[int][]int{}, texts: map[string]string{}}
	for _, m := range matches {
		var alternatives [][][]int
		for _, all := range m {
			var need [][]int
			fields := map[string]int{}
			for _, t := range all {
				i := x.index(t)
				j, ok := fields[t.field]
				if !ok {
					j = len(need)
					fields[t.field] = j
					need = append(need, nil)
				}
				need[j] = append(need[j], i)
			}
			alternatives = append(alternatives, need)
		}
		x.matches = append(x.matches, alternatives)
	}
	x.has = make([]bool, len(x.terms))
	return x
}

// index gives a term's number.
func (x *extractor) index(t term) int {
	if i := slices.Index(x.terms, t); i >= 0 {
		return i
	}
	n := len(t.field) + 1 + len(t.value)
	x.byLength[n] = append(x.byLength[n], len(x.terms))
	x.longest = max(x.longest, n)
	x.terms = append(x.terms, t)
	return len(x.terms) - 1
}

// fields are those of an entry that a line is made of. Of a field that is
// there twice the first counts.
type fields struct {
	message []byte
	texts   [fieldKinds]string
	numbers [fieldKinds]uint64
	has     [fieldKinds]bool
}

// line fills line from an entry; ok is false if no match wants it or it says
// nothing. The line's text is valid until the next call.
func (x *extractor) line(f *journalFile, e *journalfile.Entry, line *Line) (ok bool, err error) {
	clear(x.has)
	var v fields
	for i := range e.Items(f.File) {
		at := f.Item(e, i)
		slot := (at>>3 ^ at>>15) & (knownFields - 1)
		key := at | f.key
		if x.keys[slot] != key {
			if fault := x.look(f, at, key, slot, &v); fault != nil {
				err = fault // the rest of the entry may still say enough
			}
			if x.keys[slot] != key {
				continue
			}
		}
		b := x.briefs[slot]
		if b.term >= 0 {
			x.has[b.term] = true
		}
		if b.kind != fieldOther && !v.has[b.kind] {
			v.has[b.kind], v.texts[b.kind], v.numbers[b.kind] = true, x.known[slot].text, x.known[slot].number
		}
	}
	x.match()
	if !v.has[fieldMessage] || len(x.matched) == 0 {
		return false, err
	}
	x.message = append(x.message[:0], v.message...)
	*line = Line{
		Text: x.message, Time: microseconds(e.Realtime), Journal: true, Stream: "journal", Matched: x.matched, Host: v.texts[fieldHost],
	}
	for _, kind := range [...]fieldKind{fieldTag, fieldContainer, fieldCommand} {
		if line.Tag = v.texts[kind]; line.Tag != "" {
			break
		}
	}
	if line.Unit = v.texts[fieldUserUnit]; line.Unit == "" {
		line.Unit = v.texts[fieldUnit]
	}
	if at := v.numbers[fieldSource]; at != 0 {
		line.Time = microseconds(at)
	}
	line.PID = int(v.numbers[fieldPID])
	if v.has[fieldSyslogPID] && v.numbers[fieldSyslogPID] != 0 {
		line.PID = int(v.numbers[fieldSyslogPID])
	}
	return true, err
}

// newKey gives a file's part of the keys.
func (x *extractor) newKey() uint64 {
	x.count++
	if x.count >= 1<<(64-fileShift) {
		x.count = 1
		clear(x.keys[:])
	}
	return x.count << fileShift
}

// look looks at a field itself. What entries have in common is kept in the
// table's slot; what each has its own of goes to v alone.
func (x *extractor) look(f *journalFile, at, key, slot uint64, v *fields) error {
	if at >= 1<<fileShift {
		return journalfile.ErrCorrupt
	}
	b, compressed, err := f.Field(at, messageLimit)
	if err != nil {
		return err
	}
	k := brief{term: -1, kind: kindOf(b)}
	if len(b) <= x.longest {
		for _, i := range x.byLength[len(b)] {
			t := &x.terms[i]
			if n := len(t.field); string(b[:n]) == t.field && b[n] == '=' && string(b[n+1:]) == t.value {
				k.term = int32(i)
			}
		}
	}
	value := b[len(prefixes[k.kind]):]
	var known knownField
	switch k.kind {
	case fieldOther:
	case fieldMessage, fieldSource:
		if k.term >= 0 {
			x.has[k.term] = true
		}
		switch {
		case v.has[k.kind]:
		case k.kind == fieldSource:
			v.numbers[fieldSource], _ = number(value)
		case compressed:
			v.message = bytes.Clone(value) // its buffer is used again for the next field
		default:
			v.message = value
		}
		v.has[k.kind] = true
		return nil
	case fieldPID, fieldSyslogPID:
		if n, ok := number(value); ok && n < 1<<31 {
			known.number = n
		}
	default:
		known.text = x.text(value)
	}
	x.keys[slot], x.briefs[slot], x.known[slot] = key, k, known
	return nil
}

// kindOf tells a field's kind by its name.
func kindOf(b []byte) fieldKind {
	is := func(kind fieldKind) bool {
		p := prefixes[kind]
		return len(b) >= len(p) && string(b[:len(p)]) == p
	}
	if len(b) < 5 {
		return fieldOther
	}
	var candidates []fieldKind
	switch b[0] {
	case 'M':
		candidates = kindsM
	case 'S':
		candidates = kindsS
	case 'C':
		candidates = kindsC
	case '_':
		switch b[1] {
		case 'S', 'H', 'P', 'C':
			candidates = kindsTrusted
		}
	}
	for _, kind := range candidates {
		if is(kind) {
			return kind
		}
	}
	return fieldOther
}

// The kinds by the first byte of their names.
var (
	kindsM       = []fieldKind{fieldMessage}
	kindsS       = []fieldKind{fieldTag, fieldSyslogPID}
	kindsC       = []fieldKind{fieldContainer}
	kindsTrusted = []fieldKind{fieldSource, fieldUnit, fieldUserUnit, fieldHost, fieldPID, fieldCommand}
)

// match notes which matches want the entry.
func (x *extractor) match() {
	x.matched = x.matched[:0]
	for i, alternatives := range x.matches {
		if len(alternatives) == 0 || slices.ContainsFunc(alternatives, x.holds) {
			x.matched = append(x.matched, i)
		}
	}
}

// holds reports whether the entry has one term of each field.
func (x *extractor) holds(need [][]int) bool {
	for _, any := range need {
		if !slices.ContainsFunc(any, func(i int) bool { return x.has[i] }) {
			return false
		}
	}
	return true
}

// text gives the string of b, one for all lines that have the same.
func (x *extractor) text(b []byte) string {
	b = b[:min(len(b), 256)] // no name of a unit, host or program is longer
	if s, ok := x.texts[string(b)]; ok {
		return s
	}
	if len(x.texts) >= maxInterned {
		clear(x.texts)
	}
	s := string(b)
	x.texts[s] = s
	return s
}

// number reads a decimal number of at most 18 digits.
func number(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return v, true
}
