package topics

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/internal/strict"
)

// Defaults of a definition that leaves them out, fail2ban's own.
const (
	defaultMaxRetry = 5
	defaultTime     = "10m"
)

// Parse reads a definition and reports all that is wrong with it at once, each
// as [strict.Faults]. Unknown keys are faults.
func Parse(name string, b []byte) (*Definition, error) {
	d := &Definition{Target: "ip"}
	if err := Override(name, b, d); err != nil {
		return nil, err
	}
	return d, nil
}

// Override lays the keys of a file over a definition. Lists are replaced, not
// extended. On an error d may have changed.
func Override(name string, b []byte, d *Definition) error {
	if len(b) > MaxFile {
		return strict.Faults{{File: name, Text: fmt.Sprintf("it has %d bytes, more than %d", len(b), MaxFile)}}
	}
	laid, given, err := strict.Decode[Definition](name, b)
	if err != nil {
		return err
	}
	merge(reflect.ValueOf(d).Elem(), reflect.ValueOf(&laid).Elem(), given)
	if d.Detect != nil {
		d.Detect.fill()
	}
	return d.check(name, b)
}

// merge copies the fields that the file names.
func merge(to, from reflect.Value, given map[string]any) {
	for i := range to.NumField() {
		value, ok := given[to.Type().Field(i).Tag.Get("toml")]
		if !ok {
			continue
		}
		target, source := to.Field(i), from.Field(i)
		table, isTable := value.(map[string]any)
		if target.Kind() == reflect.Pointer && isTable {
			if target.IsNil() {
				target.Set(reflect.New(target.Type().Elem()))
			}
			target, source = target.Elem(), source.Elem()
		}
		if target.Kind() == reflect.Struct && isTable {
			merge(target, source, table)
			continue
		}
		target.Set(source)
	}
}

// hostName is the form of a host's name, whose last label has a letter.
var hostName = regexp.MustCompile(`^(?:localhost|(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{0,62}[A-Za-z][A-Za-z0-9-]{0,62})\.?$`)

// IsHostName says that a text may name a host: no address is one, also none that is
// mistyped.
func IsHostName(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }

func (d *Detect) fill() {
	if d.MaxRetry == 0 {
		d.MaxRetry = defaultMaxRetry
	}
	for _, s := range []*span.Duration{&d.FindTime, &d.BanTime} {
		if s.IsZero() {
			if err := s.UnmarshalText([]byte(defaultTime)); err != nil {
				panic(err) // a constant
			}
		}
	}
	if d.Increment.Factor == 0 {
		d.Increment.Factor = 1
	}
}

// check says all that is wrong with a definition that was read.
func (d *Definition) check(name string, b []byte) error {
	var all strict.Faults
	var places strict.Places
	places.Note(name, b)
	fault := func(key, format string, args ...any) {
		f := places.At(key, format, args...)
		f.File = name
		all = append(all, f)
	}
	if _, err := ban.ParseTopic(string(d.Name)); err != nil {
		fault("name", "%v", err)
	}
	if d.Target != "ip" && d.Target != "wallet" {
		fault("target", `%q is neither "ip" nor "wallet"`, d.Target)
	}
	if d.Protocol != "" && d.Protocol != ProtocolHTTP {
		fault("protocol", `%q is neither "http" nor nothing`, d.Protocol)
	}
	d.checkCost(fault)
	if d.Detect != nil {
		d.Detect.check(fault)
		if d.Target == "wallet" && len(d.Detect.Rules) > 0 {
			fault("detect", "wallets in log lines are not proven; a topic of wallets has no rules")
		}
	}
	if _, err := d.Enforce.PortRanges(); err != nil {
		fault("enforce.ports", "%v", err)
	}
	for _, p := range d.Enforce.Protocols {
		if !slices.Contains([]string{"tcp", "udp", "sctp", "dccp"}, p) {
			fault("enforce.protocols", `%q is none of "tcp", "udp", "sctp", "dccp"`, p)
		}
	}
	for i, s := range d.Samples {
		if _, err := s.Written(time.UTC); err != nil {
			fault(fmt.Sprintf("sample.%d.time", i), "%q is no time like 2026-11-21T09:14:02Z", s.Time)
		}
		if s.Target == "" {
			continue
		}
		if _, err := ban.ParseTarget(s.Target); err != nil {
			fault(fmt.Sprintf("sample.%d.target", i), "%v", err)
		}
	}
	if len(all) > 0 {
		return all
	}
	return nil
}

func (d *Detect) check(fault func(key, format string, args ...any)) {
	if d.Fail2ban == "" && len(d.Rules) == 0 {
		fault("detect", "it needs rules or the name of a fail2ban filter")
	}
	if d.Fail2ban != "" && len(d.Rules) > 0 {
		fault("detect.fail2ban", "rules and a fail2ban filter exclude each other")
	}
	d.checkFormat(fault)
	for i, r := range d.Rules {
		if r.Weight != nil && (*r.Weight < 0 || *r.Weight > 1000) {
			fault(fmt.Sprintf("detect.rule.%d.weight", i), "a weight is 0 to 1000")
		}
	}
	if d.GuestMaxRetry < 0 || d.GuestMaxRetry > 1_000_000 {
		fault("detect.guest_maxretry", "%d is not 0 to 1000000", d.GuestMaxRetry)
	}
	if d.MaxRetry < 1 || d.MaxRetry > 1_000_000 {
		fault("detect.maxretry", "%d is not 1 to 1000000", d.MaxRetry)
	}
	if d.FindTime.Duration() <= 0 {
		fault("detect.findtime", "it must be positive")
	}
	if _, _, err := StartAt(d.Start, time.Time{}); err != nil {
		fault("detect.start", "%v", err)
	}
	if d.MaxLines < 0 || d.MaxLines > 1000 {
		fault("detect.maxlines", "%d is not 0 to 1000", d.MaxLines)
	}
	if d.Episode.Duration() < 0 {
		fault("detect.episode", "it must not be negative")
	}
	for _, s := range d.IgnoreIP {
		if _, err := netip.ParseAddr(s); err == nil {
			continue
		}
		if _, err := netip.ParsePrefix(s); err != nil && !IsHostName(s) {
			fault("detect.ignoreip", "%q is no address, no prefix and no host name", s)
		}
	}
}

// checkFormat reports expressions and conditions in the wrong place.
func (d *Detect) checkFormat(fault func(key, format string, args ...any)) {
	records := d.Format != ""
	for _, f := range d.Formats() {
		if !slices.Contains([]string{"json", "logfmt", "access", "proxy"}, f) {
			fault("detect.format", `%q is none of "json", "logfmt", "access", "proxy"`, f)
		}
	}
	if records && (d.Fail2ban != "" || d.MaxLines > 1) {
		fault("detect.format", "a format excludes fail2ban and maxlines")
	}
	for _, f := range [][2]string{{"address", d.Address}, {"port", d.Port}, {"user", d.User}, {"time", d.Time}} {
		if f[1] != "" && !records {
			fault("detect."+f[0], "it names a field, and there is no format")
		}
	}
	d.checkSets(fault)
	each := func(key string, regex, where []string) {
		switch {
		case len(regex) > 0 && len(where) > 0:
			fault(key, "regex and where exclude each other")
		case len(where) > 0 && !records:
			fault(key, "where asks for fields, and there is no format")
		case len(regex) == 0 && len(where) == 0:
			fault(key, "it has no regex and no where")
		}
	}
	for i, r := range d.Rules {
		each(fmt.Sprintf("detect.rule.%d", i), r.Regex, r.Where)
	}
	for i, s := range d.Success {
		each(fmt.Sprintf("detect.success.%d", i), s.Regex, s.Where)
	}
}

// checkSets reports sets that nobody can name, or that say not whence they are.
func (d *Detect) checkSets(fault func(key, format string, args ...any)) {
	known := map[string]bool{}
	for i, s := range d.Sets {
		key := fmt.Sprintf("detect.set.%d", i)
		switch {
		case s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			fault(key, "%q is no name: it has small letters, digits and -", s.Name)
		case known[s.Name]:
			fault(key, "%q is the name of another set too", s.Name)
		}
		known[s.Name] = true
		if _, err := time.Parse(time.DateOnly, s.Date); s.Date != "" && err != nil {
			fault(key, "%q is no date like 2026-11-28", s.Date)
		}
	}
	if len(d.Sets) > 0 && d.Format == "" {
		fault("detect.set", "sets are asked of fields, and there is no format")
	}
}

// PortRanges gives the ports as inclusive ranges.
func (e Enforce) PortRanges() ([][2]uint16, error) {
	var out [][2]uint16
	for _, p := range e.Ports {
		low, high, isRange := strings.Cut(p, "-")
		if !isRange {
			high = low
		}
		a, errA := strconv.ParseUint(low, 10, 16)
		b, errB := strconv.ParseUint(high, 10, 16)
		if errA != nil || errB != nil || a == 0 || b < a {
			return nil, fmt.Errorf("%q is no port and no range of ports", p)
		}
		out = append(out, [2]uint16{uint16(a), uint16(b)})
	}
	return out, nil
}

// StartAt reads a wish for where a log begins: end for "tail" and "skip", else since: the moment that it
// names ("2026-11-28T09:00:00Z"), or so long before now as it says ("30m"). An empty wish has neither.
func StartAt(wish string, now time.Time) (since time.Time, end bool, err error) {
	switch wish {
	case "":
		return time.Time{}, false, nil
	case "tail", "skip":
		return time.Time{}, true, nil
	}
	if at, err := time.Parse(time.RFC3339, wish); err == nil {
		return at, false, nil
	}
	v, err := span.Parse(wish)
	if err != nil || v <= 0 {
		return time.Time{}, false, fmt.Errorf("%q is none of \"tail\", \"skip\", a time such as \"30m\" and a moment such as \"2026-11-28T09:00:00Z\"", wish)
	}
	return now.Add(-v), false, nil
}
