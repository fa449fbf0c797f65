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
	// the file, and a busy machine has thousands of processes, whose numbers are
	// two fields each. A power of two; the table takes 16 bytes times that.
	knownFields = 8192
)

// An extractor makes lines of journal entries. It looks at each field of an
// entry once and keeps nothing of entries that no match wants.
type extractor struct {
	terms    []term
	byLength map[int][]int // terms by the length of "FIELD=value"
	longest  int
	matches  [][][][]int // for each match the alternatives, of each the fields, of each the terms
	has      []bool      // which terms the entry at hand has
	count    uint64      // files that were given a key
	known    [knownFields]knownField
	texts    []string // by number; the first is ""
	numbers  map[string]uint32
	places   []uint64 // of the fields of the entry at hand
	unknown  []int    // which of them are not in the table
	touched  byte
	message  []byte
	matched  []int
}

// A fieldKind is a field's role in a line.
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

// A knownField holds the facts about the field at one place of a file.
type knownField struct {
	key  uint64 // the place and the file
	fact fact
}

// A fact is a field's content: the number of its text, or a process's, in the
// upper half, then the number of the term that it is and 1, then its kind. It
// is 0 for a field that nobody asked for.
type fact uint64

func newFact(kind fieldKind, term int, value uint32) fact {
	return fact(value)<<32 | fact(term+1)<<8 | fact(kind)
}

func (f fact) kind() fieldKind { return fieldKind(f) }
func (f fact) term() int       { return int(uint32(f)>>8) - 1 }
func (f fact) value() uint32   { return uint32(f >> 32) }

// fileShift leaves room for offsets of 256 TiB in a key; journald's files end
// at 4 GiB. Keys are never 0: files count from 1.
const fileShift = 48

func newExtractor(matches []match) *extractor {
	x := &extractor{byLength: map[int][]int{}, texts: make([]string, 1), numbers: map[string]uint32{}}
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
	source  uint64
	values  [fieldKinds]uint32
	at      [fieldKinds]uint16 // which field of the entry it is, from 1 on; 0 where it has none
}

// first reports whether the entry's i-th field is the first of its kind so
// far, and notes it as that.
func (v *fields) first(kind fieldKind, i int) bool {
	if at := v.at[kind]; at != 0 && int(at) <= i {
		return false
	}
	v.at[kind] = uint16(i + 1)
	return true
}

// line fills line from an entry; ok is false if no match wants it or it says
// nothing. The line's text is valid until the next call.
func (x *extractor) line(f *journalFile, e *journalfile.Entry, line *Line) (ok bool, err error) {
	if len(x.texts) > maxInterned {
		x.forget()
	}
	clear(x.has)
	var v fields
	x.places, x.unknown = f.Items(e, x.places[:0]), x.unknown[:0]
	for i, at := range x.places {
		switch k := &x.known[slotOf(at)]; {
		case k.key != at|f.key:
			x.unknown = append(x.unknown, i)
		case k.fact != 0:
			x.note(k.fact, i, &v)
		}
	}
	// The processor waits for one of these fields while it waits for the others.
	for _, i := range x.unknown {
		x.touched += f.Touch(x.places[i])
	}
	for _, i := range x.unknown {
		if fault := x.look(f, i, &v); fault != nil {
			err = fault // the rest of the entry may still say enough
		}
	}
	x.match()
	if v.at[fieldMessage] == 0 || len(x.matched) == 0 {
		return false, err
	}
	x.message = append(x.message[:0], v.message...)
	*line = Line{
		Text: x.message, Time: microseconds(e.Realtime), Journal: true, Stream: "journal", Matched: x.matched, Host: x.texts[v.values[fieldHost]],
	}
	for _, kind := range [...]fieldKind{fieldTag, fieldContainer, fieldCommand} {
		if line.Tag = x.texts[v.values[kind]]; line.Tag != "" {
			break
		}
	}
	if line.Unit = x.texts[v.values[fieldUserUnit]]; line.Unit == "" {
		line.Unit = x.texts[v.values[fieldUnit]]
	}
	if v.source != 0 {
		line.Time = microseconds(v.source)
	}
	line.PID = int(v.values[fieldPID])
	if pid := v.values[fieldSyslogPID]; pid != 0 {
		line.PID = int(pid)
	}
	return true, err
}

// note takes over the entry's i-th field.
func (x *extractor) note(said fact, i int, v *fields) {
	if term := said.term(); term >= 0 {
		x.has[term] = true
	}
	if kind := said.kind(); kind != fieldOther && v.first(kind, i) {
		v.values[kind] = said.value()
	}
}

// slotOf gives the place of a field in the table. Fields lie at multiples of 8.
func slotOf(at uint64) uint64 { return (at>>3 ^ at>>17) % knownFields }

// newKey gives a file's part of the keys.
func (x *extractor) newKey() uint64 {
	x.count++
	if x.count >= 1<<(64-fileShift) {
		x.count = 1
		clear(x.known[:])
	}
	return x.count << fileShift
}

// look looks at the entry's i-th field itself. What entries have in common is
// kept in the table; what each has its own of goes to v alone.
func (x *extractor) look(f *journalFile, i int, v *fields) error {
	at := x.places[i]
	if at >= 1<<fileShift {
		return journalfile.ErrCorrupt
	}
	b, compressed, err := f.Field(at, messageLimit)
	if err != nil {
		return err
	}
	kind, term := kindOf(b), -1
	if len(b) <= x.longest {
		for _, i := range x.byLength[len(b)] {
			t := &x.terms[i]
			if n := len(t.field); string(b[:n]) == t.field && b[n] == '=' && string(b[n+1:]) == t.value {
				term = i
			}
		}
	}
	value := b[len(prefixes[kind]):]
	var number32 uint32
	switch kind {
	case fieldOther:
	case fieldMessage, fieldSource:
		if term >= 0 {
			x.has[term] = true
		}
		switch {
		case !v.first(kind, i):
		case kind == fieldSource:
			v.source, _ = number(value)
		case compressed:
			v.message = bytes.Clone(value) // its buffer is used again for the next field
		default:
			v.message = value
		}
		return nil
	case fieldPID, fieldSyslogPID:
		if n, ok := number(value); ok && n < 1<<31 {
			number32 = uint32(n)
		}
	default:
		number32 = x.text(value)
	}
	k := &x.known[slotOf(at)]
	k.key, k.fact = at|f.key, newFact(kind, term, number32)
	x.note(k.fact, i, v)
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

// text gives the number of b's text, one for all lines that have the same.
func (x *extractor) text(b []byte) uint32 {
	b = b[:min(len(b), 256)] // no name of a unit, host or program is longer
	if len(b) == 0 {
		return 0
	}
	n, ok := x.numbers[string(b)]
	if !ok {
		n = uint32(len(x.texts))
		x.texts = append(x.texts, string(b))
		x.numbers[x.texts[n]] = n
	}
	return n
}

// forget lets go of all texts, and of the fields that refer to them.
func (x *extractor) forget() {
	clear(x.texts)
	x.texts = x.texts[:1]
	clear(x.numbers)
	clear(x.known[:])
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
