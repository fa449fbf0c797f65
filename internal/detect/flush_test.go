package detect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
	"banmesh/internal/span"
	"banmesh/topics"
)

// TestAPositionIsSavedAfterTheBansBeforeIt: while bans cannot be made durable no line
// counts as read, so after a crash they are found again.
func TestAPositionIsSavedAfterTheBansBeforeIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte(time.Now().Format(time.RFC3339)+" bad 198.51.100.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bans := 0
	run := func(flush error) error {
		d, err := New(Options{
			Jails: []Jail{{Definition: &topics.Definition{Name: "door", Target: "ip", Detect: &topics.Detect{
				Files: []string{log}, MaxRetry: 1, FindTime: span.Of(time.Hour), BanTime: span.Of(time.Hour),
				Rules: []topics.Rule{{Class: ban.ClassAuth, Regex: []string{`^ bad <HOST>$`}}},
			}}}},
			StatePath: filepath.Join(dir, "state"), Flush: func() error { return flush },
			Ban:    func(context.Context, Decision) error { bans++; return nil },
			Source: source.Options{Once: true, Start: source.StartBeginning},
		})
		if err != nil {
			t.Fatal(err)
		}
		return d.Run(t.Context())
	}
	full := errors.New("no space")
	for _, c := range []struct {
		flush error
		bans  int
	}{{full, 1}, {nil, 1}, {nil, 0}} {
		bans = 0
		if err := run(c.flush); !errors.Is(err, c.flush) || bans != c.bans {
			t.Fatalf("with %v: %v, and %d bans", c.flush, err, bans)
		}
	}
}
