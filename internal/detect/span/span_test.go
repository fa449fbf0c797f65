package span

import (
	"testing"
	"time"
)

func TestTheManualsExamplesMeanWhatItSays(t *testing.T) {
	for text, want := range map[string]float64{
		"600": 600, "10m": 600, "1h": 3600, "1hour+30min": 5400, "0d 1h 30m": 5400,
		"1d12h": 129600, "1year-6mo": 15778800, "6 months": 15778800, "10*60": 600,
		"1w": 604800, "2 weeks": 1209600, "1mo": 2629800, "1m": 60, "-1": -1, "1/2h": 1800,
		"(1+2)*3m": 540, "1.5h": 5400, "1D 2H": 93600, " 5 ": 5, "1y": 31557600, "3ss": 3,
	} {
		if got, err := Seconds(text); err != nil || got != want {
			t.Errorf("Seconds(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestWhatIsNoTimeIsRefused(t *testing.T) {
	for _, s := range []string{"", "x", "1x", "1/0", "__import__('os')", "((1)", "1..2", "m", "1m)", "1e999", "9**9", string(make([]byte, 1000))} {
		if v, err := Seconds(s); err == nil {
			t.Errorf("Seconds(%.40q) = %v, want an error", s, v)
		}
	}
}

func TestANegativeTimeIsPermanentAndFormatReadsBack(t *testing.T) {
	if d, err := Duration("-1"); err != nil || d != Permanent {
		t.Errorf("Duration(-1) = %v, %v", d, err)
	}
	for _, d := range []time.Duration{0, time.Second, 90 * time.Minute, 8 * 24 * time.Hour, Permanent} {
		if got, err := Duration(Format(d)); err != nil || got != d {
			t.Errorf("Duration(Format(%v)) = %v, %v", d, got, err)
		}
	}
}

func FuzzSeconds(f *testing.F) {
	f.Add("1h 30m")
	f.Add("((((1))))*-2d")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Duration(s); err == nil && d < 0 {
			t.Errorf("Duration(%q) = %v", s, d)
		}
	})
}
