package dates

import (
	"testing"
	"time"
)

func TestADateStandsWhereItStoodBefore(t *testing.T) {
	d := detector(t)
	for _, c := range []struct {
		name, line string
		from       int
	}{
		{"first", "host 2026/11/21 09:14:02 x", 5},
		// A client's text further on is no date of the line.
		{"a text before the date's place", "a 2026/11/21 09:14:03 Nov 20 01:02:03 x", 2},
		{"one further on", "host 2026/11/21 09:14:04 21/Nov/2001:01:02:03 x", 5},
		{"another form at the place", "host 21/Nov/2026:09:14:05 2026/11/21 01:02:03 x", 5},
	} {
		if f := d.Find([]byte(c.line)); f.From != c.from {
			t.Errorf("%s: %q: from %d, want %d", c.name, c.line, f.From, c.from)
		}
	}
}

func TestATemplateThatFitsIsTriedFirst(t *testing.T) {
	d := detector(t)
	d.Find([]byte("host <x> Nov 21, 2026 9:14:02 AM"))
	if got := d.entries[0].name; got != "MON Day, ExYear 12hour:Minute:Second AMPM" {
		t.Errorf("first is %q", got)
	}
}

func TestEveryFormIsCountedAsItself(t *testing.T) {
	d := detector(t)
	for _, line := range []string{"Nov 21 09:14:02 x", "Nov 21 09:14:03 x", "2026-11-21T09:14:02Z x", "x 21/Nov/2026:09:14:02 +0000 y"} {
		d.Find([]byte(line))
	}
	counts := map[int]int{}
	for _, n := range d.Hits() {
		counts[n]++
	}
	if counts[2] != 1 || counts[1] != 2 {
		t.Errorf("%v", d.Hits())
	}
}

func TestHoursOfTwelveAndYearsAhead(t *testing.T) {
	for line, want := range map[string]string{
		"Nov 21, 2026 12:14:02 AM x": "2026-11-21T00:14:02Z",
		"Nov 20, 2026 12:14:02 PM x": "2026-11-20T12:14:02Z",
		"Nov 20, 2026 1:14:02 PM x":  "2026-11-20T13:14:02Z",
		"11/20/2026:01:57:39 x":      "2026-11-20T01:57:39Z",
	} {
		if f := detector(t).Find([]byte(line)); f.Time.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, want %s", line, f.Time, want)
		}
	}
	for year, want := range map[int]string{2026: "20[0-2]", 2027: "20[0-3]", 2099: "20[0-0]"} {
		if got := centuries(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)); got != want {
			t.Errorf("centuries(%d) = %s, want %s", year, got, want)
		}
	}
}

func TestLongEpochsAreMillisecondsOrMicroseconds(t *testing.T) {
	for line, want := range map[string]string{
		"1795252442 x":        "2026-11-21T09:14:02Z",
		"1795252442123 x":     "2026-11-21T09:14:02.123Z",
		"1795252442123.456 x": "2026-11-21T09:14:02.123456Z",
		"1795252442123456 x":  "2026-11-21T09:14:02.123456Z",
	} {
		if f := detector(t, "LEPOCH").Find([]byte(line)); f.Time.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, want %s", line, f.Time.UTC(), want)
		}
	}
}

func TestPatternsSayWhereADateMayStand(t *testing.T) {
	for _, c := range []struct {
		pattern, line string
		from, to      int // -1 for none
	}{
		{`{^LN-BEG}`, "2026/11/21 09:14:02 x", 0, 19},
		{`{^LN-BEG}`, "host 2026/11/21 09:14:02 x", -1, 0},
		{`at={DATE}`, "at=09:14:02 x", 0, 11},
		{`(x)?y%H:%M`, "ab y09:14 z", 3, 3},
		{`%H:%M$`, "a 09:14 b 10:15", 10, 15},
	} {
		f := detector(t, c.pattern).Find([]byte(c.line))
		if f.Matched != (c.from >= 0) || f.Matched && (f.From != c.from || f.To != c.to) {
			t.Errorf("%q on %q: %+v, want %d to %d", c.pattern, c.line, f, c.from, c.to)
		}
	}
	for pattern, want := range map[string]bool{`%H:%M$`: true, `%H:%M\$`: false, `^%H:%M`: true, `(^|x)%H:%M`: false, `%H:%M`: false} {
		tmpl, err := newTemplate(pattern, now)
		if err != nil || tmpl.anchored != want {
			t.Errorf("%q: anchored %t, %v", pattern, tmpl.anchored, err)
		}
	}
	if _, err := Compile([]string{"%Y-%m", "%Y-%m"}, now); err == nil {
		t.Error("the same pattern twice is taken")
	}
}

func TestTheFastFormsKnowTheirLimits(t *testing.T) {
	for line, ok := range map[string]bool{
		"2026-11-21T09:14:02.123456Z x":  true,
		"2026-11-21T09:14:02.1234567Z x": false,
		"2026-11-21T09:14:02.Z x":        false,
		"Nov 21 09:14:02 2026 x":         false,
		"Nov 21 09:14:02 host":           true,
		"Nov 21 24:14:02 host":           false,
	} {
		if _, _, got := fast([]byte(line), now, time.UTC); got != ok {
			t.Errorf("%q: %t, want %t", line, got, ok)
		}
	}
}
