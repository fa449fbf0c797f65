package dates

import (
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func detector(t testing.TB, patterns ...string) *Detector {
	t.Helper()
	s, err := Compile(patterns, now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.New(Options{Now: func() time.Time { return now }, Location: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheUsualFormsAreFoundAndCut(t *testing.T) {
	for line, want := range map[string]string{
		"Nov 21 09:14:02 host x":                     "2026-11-21T09:14:02Z| host x",
		"Nov  1 09:14:02 host x":                     "2026-11-01T09:14:02Z| host x",
		"Dec 24 09:14:02 host x":                     "2025-12-24T09:14:02Z| host x",
		"Sun Jan 23 21:59:59.011 2005 x":             "2005-01-23T21:59:59Z| x",
		"2026-11-21T09:14:02.123456+01:00 host x":    "2026-11-21T08:14:02Z| host x",
		"2026-11-21 09:14:02,123 x":                  "2026-11-21T09:14:02Z| x",
		"2026/11/21 09:14:02 x":                      "2026-11-21T09:14:02Z| x",
		"[21/Nov/2026:09:14:02 -0500] \"GET\"":       "2026-11-21T14:14:02Z|[] \"GET\"",
		"1.2.3.4 - - [21/Nov/2026:09:14:02 +0000] x": "2026-11-21T09:14:02Z|1.2.3.4 - - [] x",
		"21-11-2026 09:14:02 x":                      "2026-11-21T09:14:02Z| x",
		"1795252442.123 x":                           "2026-11-21T09:14:02Z| x",
		"09:14:02 x":                                 "2026-11-21T09:14:02Z| x",
		"11:14:02 x":                                 "2026-11-20T11:14:02Z| x",
		"<11/21/26@09:14:02> x":                      "2026-11-21T09:14:02Z| x",
		"261121  9:14:02 x":                          "2026-11-21T09:14:02Z| x",
		"Nov 21, 2026 9:14:02 AM x":                  "2026-11-21T09:14:02Z| x",
		"20261121T091402 x":                          "2026-11-21T09:14:02Z| x",
		"PST Nov 21 01:14:02 x":                      "2026-11-21T09:14:02Z| x",
		"@4000000069281b2a000000000 x":               "none",
		"no date at all":                             "none",
		"Feb 30 09:14:02 x":                          "never| x",
	} {
		f := detector(t).Find([]byte(line))
		got := "none"
		if f.Matched {
			got = "never|" + line[:f.From] + line[f.To:]
			if !f.Time.IsZero() {
				got = f.Time.UTC().Truncate(time.Second).Format(time.RFC3339) + "|" + line[:f.From] + line[f.To:]
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

func TestTheFastFormsAgreeWithTheTemplates(t *testing.T) {
	for _, line := range []string{
		"Nov 21 09:14:02 host x", "Nov  1 09:14:02 host", "Feb 29 09:14:02 x 1234", "Jan 23 21:59:59 2005 x", "Jan 23 21:59:59 2005x y",
		"2026-11-21T09:14:02.123456+01:00 host x", "2026-11-21 09:14:02 Zebra", "2026-11-21 09:14:02Z x", "2026-11-21 09:14:02,1234567 x", "2026-11-21T09:14:02.5 -0100 x",
		"2026-02-30 09:14:02 x", "2099-11-21 09:14:02 x",
	} {
		slow := detector(t)
		slow.usual = nil
		a, b := detector(t).Find([]byte(line)), slow.Find([]byte(line))
		if a.From != b.From || a.To != b.To || !a.Time.Equal(b.Time) {
			t.Errorf("%q: fast %+v, templates %+v", line, a, b)
		}
	}
}

func TestOwnPatternsMeanWhatFail2banSays(t *testing.T) {
	for _, c := range []struct{ pattern, line, want string }{
		{`^\[%Y-%m-%d %H:%M:%S\]`, "[2026-11-21 09:14:02] x", " x"},
		{`"time":"{DATE}`, `{"time":"2026-11-21T09:14:02Z"}`, `{"}`},
		{`{NONE}`, "Nov 21 09:14:02 x", "Nov 21 09:14:02 x"},
		{`ts={EPOCH}`, "ts=1795252442.123 x", " x"},
		{`%%d %d/%m`, "%d 21/11 x", " x"},
		{`{^LN-BEG}%H:%M`, "09:14 x 10:15", " x 10:15"},
	} {
		f := detector(t, c.pattern).Find([]byte(c.line))
		if got := c.line[:f.From] + c.line[f.To:]; !f.Matched || got != c.want {
			t.Errorf("%q on %q: %q (%+v), want %q", c.pattern, c.line, got, f, c.want)
		}
	}
	for _, bad := range []string{"%Q", "(", "%Y(", `{^LN-BEG}[`} {
		if _, err := Compile([]string{bad}, now); err == nil {
			t.Errorf("Compile(%q) took it", bad)
		}
	}
}

func TestZonesAreFixedOffsets(t *testing.T) {
	for s, want := range map[string]int{"Z": 0, "CEST": 7200, "+0200": 7200, "-02": -7200, "+05:30": 19800, "UTC-0100": -3600, "CET+0100": 7200, "PDT": -25200} {
		if got, err := ZoneOffset(s); err != nil || got != want {
			t.Errorf("ZoneOffset(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Europe/Paris", "+1", "+123456", "QQQ", "UTC+x"} {
		if got, err := ZoneOffset(s); err == nil {
			t.Errorf("ZoneOffset(%q) = %d", s, got)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add("Nov 21 09:14:02 x", "")
	f.Add("[1795252442] x", "{EPOCH}")
	f.Add("x 21/Nov/2026:09:14:02 +0000", `\[{DATE}`)
	usual := detector(f)
	f.Fuzz(func(t *testing.T, line, pattern string) {
		if len(line) > 200 || len(pattern) > 60 || strings.Count(pattern, "{") > 3 {
			return
		}
		check := func(d *Detector) {
			if found := d.Find([]byte(line)); found.From < 0 || found.To < found.From || found.To > len(line) {
				t.Errorf("%q with %q: %+v", line, pattern, found)
			}
		}
		check(usual)
		if s, err := Compile([]string{pattern}, now); err == nil {
			d, err := s.New(Options{Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			check(d)
		}
	})
}

// {NONE} fits every line, so that wherever it stands the others are tried first.
func TestNoneIsTriedLast(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, patterns := range [][]string{{`{NONE}`, `^%Y-%m-%d %H:%M:%S`}, {`^%Y-%m-%d %H:%M:%S`, `{NONE}`}} {
		set, err := Compile(patterns, now)
		if err != nil {
			t.Fatal(err)
		}
		d, err := set.New(Options{Now: func() time.Time { return now }, Location: time.UTC})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if f := d.Find([]byte("no date in it")); !f.Matched || f.To != f.From || !f.Time.IsZero() {
				t.Errorf("%q: a line without a date: %+v", patterns, f)
			}
			if f := d.Find([]byte("2026-11-21 09:14:02 x")); f.To != 19 || f.Time.Hour() != 9 {
				t.Errorf("%q: a line with a date: %+v", patterns, f)
			}
		}
	}
}
