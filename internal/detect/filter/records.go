package filter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/detect/fields"
)

// Records are the rules for lines of fields. A line that is of none of the formats
// is left to the expressions.
type Records struct {
	Formats []fields.Format
	// Address, Port, User and Time name fields; several names with "|" between
	// them are tried in order. Only Address must be set.
	Address, Port, User, Time string
	// Where has the conditions of each rule; all of a rule must hold. The first
	// rule whose do decides. The rules of SuccessWhere come after.
	// A condition's expression may name the offender in place of Address.
	Where, SuccessWhere [][]string
	// Sets are the texts that conditions look for by a name.
	Sets map[string]fields.Texts
}

// records are compiled Records.
type records struct {
	formats                   []fields.Format
	address, port, user, time []string
	rules                     [][]fields.Condition
	texts                     []string
	success                   int // the first rule that is a success
}

var errNoAddress = errors.New("no field is named that holds the address")

func compileRecords(name string, r *Records) (*records, error) {
	out := &records{
		formats: r.Formats, address: names(r.Address), port: names(r.Port), user: names(r.User), time: names(r.Time), success: len(r.Where),
	}
	var faults []error
	for _, f := range r.Formats {
		if !slices.Contains(fields.Formats, f) {
			faults = append(faults, fmt.Errorf("%s: format %q is none of %q", name, f, fields.Formats))
		}
	}
	sets := map[string]*fields.Set{}
	for _, key := range slices.Sorted(maps.Keys(r.Sets)) {
		set, err := fields.NewSet(key, r.Sets[key])
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
		sets[key] = set
	}
	for i, where := range append(append([][]string{}, r.Where...), r.SuccessWhere...) {
		var rule []fields.Condition
		for _, s := range where {
			c, err := fields.ParseCondition(s, sets)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: rule %d: %w", name, i+1, err))
				continue
			}
			rule = append(rule, c)
		}
		if len(out.address) == 0 && !slices.ContainsFunc(rule, namesOffender) {
			faults = append(faults, fmt.Errorf("%s: rule %d: %w", name, i+1, errNoAddress))
		}
		if len(where) == 0 {
			faults = append(faults, fmt.Errorf("%s: rule %d has no condition", name, i+1))
		}
		out.rules, out.texts = append(out.rules, rule), append(out.texts, strings.Join(where, "; "))
	}
	return out, errors.Join(faults...)
}

// namesOffender says that a condition's expression names an offender.
func namesOffender(c fields.Condition) bool {
	re := c.Regex()
	return re != nil && (re.Group("ip4") >= 0 || re.Group("ip6") >= 0)
}

// parse reads a line in the first of the formats that it is of.
func (r *records) parse(into *fields.Record, line []byte) bool {
	for _, f := range r.formats {
		if into.Parse(f, line) == nil {
			return true
		}
	}
	return false
}

// names splits "a | b".
func names(s string) (out []string) {
	for name := range strings.SplitSeq(s, "|") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// literals gives for each rule the texts of the condition that says most.
func (r *records) literals() [][]string {
	out := make([][]string, len(r.rules))
	for i, rule := range r.rules {
		longest := 0
		for _, c := range rule {
			list := c.Literals()
			shortest := 0
			for _, s := range list {
				if shortest == 0 || len(s) < shortest {
					shortest = len(s)
				}
			}
			if shortest > longest {
				longest, out[i] = shortest, list
			}
		}
	}
	return out
}

// first gives the first of several fields that is there.
func first(rec *fields.Record, names []string) (value string, ok bool) {
	for _, name := range names {
		if rec.Twice(name) {
			return "", false // who wrote which cannot be said, of the next one neither
		}
		if value, ok = rec.Get(name); ok && value != "" {
			return value, true
		}
	}
	return "", false
}

// when gives the time that a line states, zero for none.
func (s *State) when(zone *time.Location) time.Time {
	if text, ok := first(&s.record, s.f.records.time); ok {
		if t, ok := fields.Time(text, zone); ok {
			return t
		}
	}
	return time.Time{}
}

// judgeRecord is Judge for a line of fields. ok is false for a line that is of
// none of the formats.
func (s *State) judgeRecord(line *Text, candidates Candidates) (ok bool) {
	f := s.f.records
	if known := s.parsed && s.parsedFor == line; !known && !f.parse(&s.record, line.buf[:len(line.buf)-1]) {
		return false
	}
	s.parsed = false
	base := len(s.f.failregex)
	n := base + len(f.rules)
	for i := candidates.next(base, n); i < n; i = candidates.next(i+1, n) {
		rule := f.rules[i-base]
		if slices.ContainsFunc(rule, func(c fields.Condition) bool { return !c.Holds(&s.record) }) {
			continue
		}
		m := Match{Rule: i, From: -1, Text: line.String(), Success: i-base >= f.success}
		if !s.offender(&m, rule) {
			return true
		}
		m.Lines = []string{strings.TrimSuffix(m.Text, "\n")}
		s.out = append(s.out, m)
		return true
	}
	return true
}

// offender fills in whom a line of fields names.
func (s *State) offender(m *Match, rule []fields.Condition) bool {
	f := s.f.records
	for i := range rule {
		rule[i].Groups(&s.record, func(name, value string) { m.Fields.set(Field{Name: name, Value: value}) })
	}
	if m.identify(); m.ID == "" {
		// "192.0.2.1:51234", "[2001:db8::1]:51234"
		id, ok := first(&s.record, f.address)
		if !ok {
			return false
		}
		host, port, isPair := cutPort(id)
		m.ID = host
		m.Fields.set(Field{Name: addressField(host), Value: host})
		if isPair {
			m.Fields.set(Field{Name: "fport", Value: port})
		}
	}
	if text, ok := first(&s.record, f.port); ok {
		m.Fields.set(Field{Name: "fport", Value: text})
	}
	if user, ok := first(&s.record, f.user); ok {
		m.Fields.set(Field{Name: "user", Value: user})
	}
	return true
}

func addressField(host string) string {
	if strings.Contains(host, ":") {
		return "ip6"
	}
	return "ip4"
}

// cutPort splits an address from a port that follows it.
func cutPort(s string) (host, port string, ok bool) {
	if rest, bracket := strings.CutPrefix(s, "["); bracket {
		host, after, closed := strings.Cut(rest, "]")
		port, ok = strings.CutPrefix(after, ":")
		if !closed || after != "" && !ok {
			return s, "", false
		}
		return host, port, ok
	}
	if strings.Count(s, ":") == 1 {
		return strings.Cut(s, ":")
	}
	return s, "", false
}
