// Package detect_test holds the detection engine's trials against the real
// fail2ban: its own sample suite, run from the installed package.
package detect_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
)

// The suite's own clock: 2005-08-14 12:00 in Zurich.
var suiteNow = time.Unix(1124013600, 0)

// places are where the suite is: its filters and its samples. The environment
// may name another version's.
func places(t *testing.T) (config, tests string) {
	config, tests = os.Getenv("FAIL2BAN_CONFIG"), os.Getenv("FAIL2BAN_TESTS")
	if config == "" {
		config = "/etc/fail2ban"
	}
	if tests == "" {
		tests = "/usr/lib/python3/dist-packages/fail2ban/tests"
	}
	for _, dir := range []string{filepath.Join(config, "filter.d"), filepath.Join(tests, "files", "logs")} {
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("fail2ban's sample suite is not installed: %v", err)
		}
	}
	return config, tests
}

// A suite runs one filter's samples.
type suite struct {
	t      *testing.T
	zone   *time.Location
	config string // directory that holds filter.d
	logs   string
	name   string

	variants map[string]*variant
	checks   int
	failed   int
	failures []string
}

type variant struct {
	name     string
	options  map[string]any
	follower *filter.Follower
	rules    []string
	used     map[int]bool
}

func TestFail2bansOwnSampleSuitePassesAsAnnotated(t *testing.T) {
	config, tests := places(t)
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(config, "filter.d", "*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	filters, variants, checks, failed := 0, 0, 0, 0
	run := func(dir, name string) {
		filters++
		s := &suite{t: t, zone: zone, config: dir, logs: filepath.Join(tests, "files", "logs"), name: name, variants: map[string]*variant{}}
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.run()
			for i, f := range s.failures {
				if i == 8 {
					t.Errorf("and %d more", len(s.failures)-i)
					break
				}
				t.Error(f)
			}
		})
		variants += len(s.variants)
		checks += s.checks
		failed += s.failed
	}
	for _, path := range names {
		if name := strings.TrimSuffix(filepath.Base(path), ".conf"); !strings.HasSuffix(name, "common") {
			run(config, name)
		}
	}
	own := ownFilters(t, config, tests)
	extra, err := filepath.Glob(filepath.Join(own, "filter.d", "zzz-*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range extra {
		run(own, strings.TrimSuffix(filepath.Base(path), ".conf"))
	}
	t.Logf("fail2ban's sample suite: %d filters, %d variants, %d of %d checks passed", filters, variants, checks-failed, checks)
	fmt.Printf("figure suite-fail2ban-passed %d checks aim %d\n", checks-failed, checks)
	if checks < 1500 {
		t.Errorf("only %d checks were run", checks)
	}
}

// ownFilters copies the suite's own filters to where their includes can be
// found: packaging leaves their relative paths broken.
func ownFilters(t *testing.T, config, tests string) string {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "filter.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	include := regexp.MustCompile(`(?m)^before = \S*/common\.conf$`)
	all, err := filepath.Glob(filepath.Join(tests, "config", "filter.d", "zzz-*.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = include.ReplaceAll(b, []byte("before = "+filepath.Join(config, "filter.d", "common.conf")))
		if err := os.WriteFile(filepath.Join(dir, "filter.d", filepath.Base(path)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var header = regexp.MustCompile(`^#+ ?(failJSON|(?:file|filter)Options|addFILE):(.+)$`)

func (s *suite) fail(format string, args ...any) {
	s.failed++
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
}

func (s *suite) run() {
	files := []string{s.name}
	var tests []*variant
	for i := 0; i < len(files); i++ {
		b, err := os.ReadFile(filepath.Join(s.logs, files[i]))
		if err != nil {
			s.t.Fatal(err)
		}
		common := map[string]any{}
		ignore := false
		lines := strings.Split(string(bytes.TrimSuffix(b, []byte("\n"))), "\n")
		for n := 0; n < len(lines); n++ {
			line := lines[n]
			data := map[string]any{}
			if m := header.FindStringSubmatch(line); m != nil {
				switch m[1] {
				case "fileOptions":
					s.json(files[i], n, m[2], &common)
					continue
				case "filterOptions":
					tests, ignore = s.options(files[i], n, m[2], common)
					continue
				case "addFILE":
					var name string
					s.json(files[i], n, m[2], &name)
					files = append(files, name)
					continue
				}
				s.json(files[i], n, m[2], &data)
				if n++; n >= len(lines) {
					break
				}
				line = lines[n]
			} else if ignore || strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			if ignore {
				continue
			}
			if tests == nil {
				tests = []*variant{s.variant("", map[string]any{})}
			}
			for _, v := range tests {
				if c, ok := data["constraint"].(string); ok && !s.condition(c, v.options) {
					continue
				}
				s.checks++
				if fault := s.check(v, strings.TrimRight(line, "\r"), data); fault != "" {
					s.fail("%s:%d (%s): %s\n  %s", files[i], n+1, v.name, fault, line)
				}
			}
		}
	}
	usedAnywhere := map[string]bool{}
	for _, v := range s.variants {
		for i := range v.used {
			usedAnywhere[v.rules[i]] = true
		}
	}
	for _, v := range s.variants {
		for i, rule := range v.rules {
			if !usedAnywhere[rule] {
				s.failures = append(s.failures, fmt.Sprintf("variant %q: failregex %d has no sample: %s", v.name, i, rule))
			}
		}
	}
}

func (s *suite) json(file string, n int, text string, into any) {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.t.Fatalf("%s:%d: %v", file, n+1, err)
	}
}

// options reads the variants that the following lines are tried with.
func (s *suite) options(file string, n int, text string, common map[string]any) (tests []*variant, ignore bool) {
	var list []map[string]any
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		s.json(file, n, text, &list)
	} else {
		var one map[string]any
		s.json(file, n, text, &one)
		list = append(list, one)
	}
	tests = []*variant{}
	for _, o := range list {
		merged := maps.Clone(common)
		maps.Copy(merged, o)
		if c, ok := merged["test.condition"].(string); ok {
			ignore = !s.condition(c, merged)
		}
		if !ignore {
			name, _ := merged["test.filter-name"].(string)
			tests = append(tests, s.variant(name, merged))
		}
	}
	return tests, ignore
}

// condition evaluates the only forms of expressions that the suite holds.
func (s *suite) condition(c string, options map[string]any) bool {
	if m := regexp.MustCompile(`^name ?== ?'(.*)'$`).FindStringSubmatch(c); m != nil {
		return s.name == m[1]
	}
	if m := regexp.MustCompile(`^opts\.get\('(\w+)'\) ?(==|!=) ?'(.*)'$`).FindStringSubmatch(c); m != nil {
		got, _ := options[m[1]].(string)
		return (got == m[3]) == (m[2] == "==")
	}
	s.t.Fatalf("unknown condition %q", c)
	return false
}

func (s *suite) variant(name string, options map[string]any) *variant {
	given := map[string]string{}
	for k, v := range options {
		if !strings.HasPrefix(k, "test.") {
			given[k] = fmt.Sprint(v)
		}
	}
	key := name
	if key == "" {
		keys := slices.Sorted(maps.Keys(given))
		for _, k := range keys {
			key += fmt.Sprintf("[%s=%q]", k, given[k])
		}
	}
	if v := s.variants[key]; v != nil {
		copied := *v
		copied.options = options
		return &copied
	}
	spec := s.name
	for _, k := range slices.Sorted(maps.Keys(given)) {
		quote := `"`
		if strings.Contains(given[k], quote) {
			quote = "'"
		}
		spec += "[" + k + "=" + quote + given[k] + quote + "]"
	}
	read, err := f2bconf.ReadFilter(s.config, spec, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := filter.Compile(detect.FilterOf(read))
	if err != nil {
		s.t.Fatal(err)
	}
	follower, err := f.Follow(dates.Options{Now: func() time.Time { return suiteNow }, Location: s.zone})
	if err != nil {
		s.t.Fatal(err)
	}
	follower.All = true
	v := &variant{name: key, options: options, follower: follower, used: map[int]bool{}}
	for _, r := range f.Rules() {
		v.rules = append(v.rules, r.Expanded())
	}
	s.variants[key] = v
	return v
}

// check judges one line and gives its fault, or "".
func (s *suite) check(v *variant, line string, data map[string]any) string {
	at := time.Time{}
	if v.options["logtype"] == "journal" {
		at = suiteNow
		if prefix, ok := v.options["test.prefix-line"].(string); ok {
			line = prefix + line
		}
	}
	var found []filter.Match
	for _, m := range v.follower.Line([]byte(strings.ToValidUTF8(line, "\uFFFD")), at, nil) {
		if nofail, _ := m.Fields.Get("nofail"); m.ID == "" || nofail != "" {
			v.used[m.Rule] = true
			continue
		}
		found = append(found, m)
	}
	want, _ := data["match"].(bool)
	switch {
	case len(found) == 0 && want:
		return "no match, want one"
	case len(found) == 0:
		return ""
	case !want:
		return fmt.Sprintf("failregex %d matches, want none", found[0].Rule)
	case len(found) > 1:
		return fmt.Sprintf("%d failregexes match, want one: %d, %d", len(found), found[0].Rule, found[1].Rule)
	}
	m := found[0]
	v.used[m.Rule] = true
	if fault := compare(m, data); fault != "" {
		return fault
	}
	if text, ok := data["time"].(string); ok {
		expected, err := time.ParseInLocation("2006-1-2T15:04:05", text, s.zone)
		if err != nil || !v.follower.At.Equal(expected) {
			return fmt.Sprintf("time %v, want %v (%v)", v.follower.At.In(s.zone), expected, err)
		}
	}
	return ""
}

func compare(m filter.Match, data map[string]any) string {
	for k, want := range data {
		var got any
		switch k {
		case "time", "match", "desc", "constraint":
			continue
		case "users":
			list, _ := want.([]any)
			expected := map[string]bool{}
			for _, u := range list {
				expected[fmt.Sprint(u)] = true
			}
			seen := map[string]bool{}
			for _, u := range m.Users {
				seen[u] = true
			}
			if !reflect.DeepEqual(expected, seen) {
				return fmt.Sprintf("users %v, want %v", m.Users, want)
			}
			continue
		case "attempts":
			got = float64(len(m.Lines))
		case "ip":
			got = m.Address
		default:
			text, ok := m.Fields.Get(k)
			if ok {
				got = text
			} else if k == "host" {
				got = m.ID
				if a, err := netip.ParseAddr(m.ID); err == nil {
					got = a.Unmap().String()
				}
				if b, err := netip.ParseAddr(fmt.Sprint(want)); err == nil {
					want = b.Unmap().String()
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			return fmt.Sprintf("%s is %v, want %v", k, got, want)
		}
	}
	return ""
}
