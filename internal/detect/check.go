package detect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/detect/filter"
	"banmesh/internal/strict"
	"banmesh/topics"
)

// ErrMovable says that a client can choose whom an expression names.
var ErrMovable = errors.New("a client can move the address")

// Check says all that is wrong with a definition before it is used, signed or
// adopted: expressions that do not compile, that a client can move, journal
// matches that any user of the machine can fulfil. text is the file name's, so
// that faults have places. Definitions that name a fail2ban filter are as
// foreign as that, and only compiled where it is there.
func Check(name string, text []byte, def *topics.Definition) error {
	if def.Detect == nil {
		return nil
	}
	var faults strict.Faults
	fault := func(near, format string, args ...any) *strict.Fault {
		f := &strict.Fault{File: name, Text: fmt.Sprintf(format, args...)}
		if at := bytes.Index(text, []byte(near)); near != "" && at >= 0 {
			f.Line = bytes.Count(text[:at], []byte("\n")) + 1
			f.Column = at - bytes.LastIndexByte(text[:at], '\n')
		}
		faults = append(faults, f)
		return f
	}
	for _, m := range def.Detect.Journal {
		if why := weakMatch(m); why != "" {
			fault(m, "detect.journal: %q: %s", m, why)
		}
	}
	if def.Detect.Fail2ban == "" && checkExpressions(def, fault) {
		checkFilter(def, fault)
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// checkExpressions compiles each expression by itself, so that a fault has its
// place. It says whether all do.
func checkExpressions(def *topics.Definition, fault func(near, format string, args ...any) *strict.Fault) bool {
	ok := true
	one := func(where string, list []string) {
		for _, source := range list {
			c := filter.Config{Name: where, Prefregex: def.Detect.Prefregex, Failregex: []string{source}, MaxLines: def.Detect.MaxLines}
			if _, err := filter.Compile(c); err != nil {
				ok = false
				f := fault(source, "%v", err)
				if strings.Contains(err.Error(), `redefinition of group name "ip`) {
					f.Hint = "an expression names one address: make two of it"
				}
			}
		}
	}
	for i, r := range def.Detect.Rules {
		one(fmt.Sprintf("rule %d", i+1), r.Regex)
	}
	for i, s := range def.Detect.Success {
		one(fmt.Sprintf("success %d", i+1), s.Regex)
	}
	return ok
}

// checkFilter compiles all of a definition and looks for expressions that a client can
// move.
func checkFilter(def *topics.Definition, fault func(near, format string, args ...any) *strict.Fault) {
	j, err := newJail(Jail{Definition: def}, &Options{}, &budget{})
	if err != nil {
		fault("[detect]", "%v", err)
		return
	}
	for _, w := range j.filter.Weaknesses() {
		source := j.filter.Describe(w.Rule)
		near := source
		for part := range strings.SplitSeq(source, "; ") {
			if strings.Contains(part, " ~ ") {
				near = part
			}
		}
		fault(near, "%v: %s: %s", ErrMovable, w, source)
	}
}

// weakMatch says why a journal match is fulfilled by a log line that any user of the
// machine can log, "" where it is not.
func weakMatch(match string) string {
	for alternative := range strings.SplitSeq(match, "+") {
		held := false
		for _, word := range strings.Fields(alternative) {
			field, _, _ := strings.Cut(word, "=")
			held = held || slices.Contains(trustedFields, field)
		}
		if !held {
			return "any user of this machine can log so: add _UID=0, or name a unit of the system with _SYSTEMD_UNIT"
		}
	}
	return ""
}

// trustedFields are those of the journal that the journal itself writes, and
// that no user chooses.
var trustedFields = []string{"_UID", "_SYSTEMD_UNIT", "_TRANSPORT", "_AUDIT_TYPE"}

// Usable says why a definition's filter cannot run, nil where it can.
func Usable(def *topics.Definition) error {
	_, err := newJail(Jail{Definition: def}, &Options{}, &budget{})
	return err
}

// Warnings names the doubts about a definition that are no reason to leave it
// out: [Check] refuses them in one that is shipped, signed or adopted. Of a
// foreign one, fail2ban's, doubtful says only that the address may be movable:
// nobody here knows which of its texts a client writes, and most cannot be moved.
func Warnings(def *topics.Definition, foreign bool) (list []string, doubtful bool) {
	j, err := newJail(Jail{Definition: def}, &Options{}, &budget{})
	if err != nil {
		return nil, false
	}
	for _, m := range j.def.Detect.Journal {
		if why := weakMatch(m); why != "" {
			list = append(list, fmt.Sprintf("journal match %q: %s", m, why))
		}
	}
	m := movable(j.filter)
	if foreign {
		return list, len(m) > 0
	}
	return append(list, m...), false
}

// movable describes the expressions that a client is shown to move, as one
// warning.
func movable(f *filter.Filter) []string {
	var rules []string
	var first filter.Weakness
	for _, w := range f.Weaknesses() {
		if !w.Shown {
			continue
		}
		if len(rules) == 0 {
			first = w
		}
		rules = append(rules, strconv.Itoa(w.Rule+1))
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return []string{fmt.Sprintf("expression %s: %v: %s", rules[0], ErrMovable, first)}
	}
	return []string{fmt.Sprintf("expressions %s: %v: in the first, %s", strings.Join(rules, ", "), ErrMovable, first)}
}
