package detect

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/topics"
)

// TestWhereALogBeginsThatWasNotReadBefore: by default with the lines of findtime, else as
// the definition wishes.
func TestWhereALogBeginsThatWasNotReadBefore(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	for wish, want := range map[string][]string{
		"":     {"198.51.100.2", "198.51.100.3"},
		"tail": nil,
		"skip": nil,
		"2m":   {"198.51.100.3"},
		now.Add(-2 * time.Minute).Format(time.RFC3339): {"198.51.100.3"},
		now.Add(-6 * time.Minute).Format(time.RFC3339): {"198.51.100.2", "198.51.100.3"},
	} {
		log := filepath.Join(t.TempDir(), "log")
		var text string
		for _, x := range []struct {
			ago     time.Duration
			address string
		}{{2 * time.Hour, "198.51.100.1"}, {5 * time.Minute, "198.51.100.2"}, {time.Minute, "198.51.100.3"}} {
			text += now.Add(-x.ago).Format(time.RFC3339) + " bad " + x.address + "\n"
		}
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		o := Options{
			Jails: []Jail{{Definition: &topics.Definition{Name: "door", Target: "ip", Detect: &topics.Detect{
				Files: []string{log}, Start: wish, MaxRetry: 1, FindTime: span.Of(10 * time.Minute), BanTime: span.Of(time.Hour),
				Rules: []topics.Rule{{Class: ban.ClassAuth, Regex: []string{`^ bad <HOST>$`}}},
			}}}},
			Ban: func(_ context.Context, v Decision) error { got = append(got, v.Target.String()); return nil },
			Now: func() time.Time { return now },
		}
		o.Source.Once = true
		d, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("start = %q: banned %q, want %q", wish, got, want)
		}
	}
}
