package dates

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTheFastPathRanksAsASearchDoes: of lines with dates in several forms and places the
// same one is found, whether the usual forms are read by the fast path or not.
func TestTheFastPathRanksAsASearchDoes(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		set, err := Compile(nil, now)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{Now: func() time.Time { return now }, Location: time.UTC}
		fast, err := set.New(o)
		if err != nil {
			t.Fatal(err)
		}
		slow, err := set.New(o)
		if err != nil {
			t.Fatal(err)
		}
		slow.usual = nil
		for i := range rapid.IntRange(1, 80).Draw(t, "lines") {
			at := now.Add(-time.Duration(rapid.IntRange(0, 100_000).Draw(t, "ago")) * time.Second)
			text := rapid.SampledFrom([]string{
				"Jan _2 15:04:05", "2006-01-02T15:04:05", "2006-01-02T15:04:05.000Z07:00", "2006/01/02 15:04:05", "[02/Jan/2006:15:04:05 -0700]", "Mon Jan _2 15:04:05 2006",
				"Jan _2 15:04:05 2006", "15:04:05", "x 2006-01-02 15:04:05",
			}).Draw(t, "form")
			line := at.Format(text) + rapid.SampledFrom([]string{" bad 192.0.2.1", ": bad", " at " + at.Add(-time.Hour).Format(time.RFC3339), " in [21/Nov/2026:09:14:02 +0000] bad", ""}).Draw(t, "rest")
			if rapid.Bool().Draw(t, "prefixed") {
				line = rapid.SampledFrom([]string{"<38>", "host: ", "192.0.2.9 - - "}).Draw(t, "prefix") + line
			}
			f, s := fast.Find([]byte(line)), slow.Find([]byte(line))
			if fmt.Sprint(f.From, f.To, f.Matched, f.Time.Unix()) != fmt.Sprint(s.From, s.To, s.Matched, s.Time.Unix()) {
				t.Fatalf("line %d, %q: the fast path finds %+v, a search %+v", i, line, f, s)
			}
		}
	})
}
