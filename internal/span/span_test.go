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

func TestATextThatIsNoTimeIsRefused(t *testing.T) {
	for _, s := range []string{"", "x", "1x", "1/0", "__import__('os')", "((1)", "1..2", "m", "1m)", "1e999", "9**9", string(make([]byte, 1000))} {
		if v, err := Seconds(s); err == nil {
			t.Errorf("Seconds(%.40q) = %v, want an error", s, v)
		}
	}
}

func TestANegativeTimeIsPermanentAndFormatReadsBack(t *testing.T) {
	if d, err := Parse("-1"); err != nil || d != Permanent {
		t.Errorf("Parse(-1) = %v, %v", d, err)
	}
	for _, d := range []time.Duration{0, time.Second, 90 * time.Minute, 8 * 24 * time.Hour, Permanent} {
		if got, err := Parse(Format(d)); err != nil || got != d {
			t.Errorf("Parse(Format(%v)) = %v, %v", d, got, err)
		}
	}
}

// A person who reads "30d" in one file writes it in the next one.
func TestADurationIsReadAndWrittenAlikeInEveryFile(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1mo": 2629800 * time.Second, "1d12h": 36 * time.Hour, "90": 90 * time.Second} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Duration() != want {
			t.Errorf("%q is read as %v, %v", text, d, err)
		}
		b, err := d.MarshalText()
		var back Duration
		if err != nil || back.UnmarshalText(b) != nil || back != d {
			t.Errorf("%q is written as %q, %v, and read back as %v", text, b, err, back)
		}
	}
	kept := Of(time.Hour)
	if err := kept.UnmarshalText([]byte("soon")); err == nil || kept != Of(time.Hour) {
		t.Errorf("a fault changed the value: %v, %v", kept, err)
	}
}

func FuzzSeconds(f *testing.F) {
	f.Add("1h 30m")
	f.Add("((((1))))*-2d")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Parse(s); err == nil && d < 0 {
			t.Errorf("Parse(%q) = %v", s, d)
		}
	})
}
