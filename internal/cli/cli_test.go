package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestErrorsArePrintedWithTheirHints(t *testing.T) {
	var b strings.Builder
	err := errors.Join(Hint(errors.New("no such topic"), "try %s", "agent topics list"), Usage("one argument"))
	if code := Report(&b, "agent", err); code != ExitUsage {
		t.Errorf("code %d", code)
	}
	want := "agent: error: no such topic\nagent: hint: try agent topics list\nagent: error: one argument\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	two := fmt.Errorf("%s: %w: %w", "agent.db", errors.New("damaged"), errors.New("cut off"))
	if code := Report(&b, "agent", two); code != ExitError || b.String() != "agent: error: agent.db: damaged: cut off\n" {
		t.Errorf("an error that wraps two: %d, %q", code, b.String())
	}
	if Report(&b, "agent", nil) != ExitOK {
		t.Error("no error, but not 0")
	}
}

func TestDurationsReadAsAPersonSaysThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 45 * time.Second: "45 s", 90 * time.Second: "1 min 30 s", time.Hour: "1 h",
		239*time.Hour + 30*time.Minute: "10 d", 26 * time.Hour: "1 d 2 h", -time.Minute: "-1 min", 3599800 * time.Millisecond: "1 h", 59*time.Minute + 20*time.Second: "59 min 20 s", 5 * time.Millisecond: "5 ms",
	} {
		if got := Short(d); got != want {
			t.Errorf("Short(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestForeignTextCannotMoveTheCursor(t *testing.T) {
	var b strings.Builder
	table := NewTable(&b, "NAME")
	table.Row("a\x1b[2Jb\u202ec\nd")
	table.Flush()
	if got := b.String(); got != "NAME\na?[2Jb?c?d\n" {
		t.Errorf("%q", got)
	}
}
