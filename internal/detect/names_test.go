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

// TestANameInALineBansWhoHasTheName: the owner of a name may point it at anybody; only
// an address that has the name itself is banned, weakly, and for this node alone.
func TestANameInALineBansWhoHasTheName(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	at := time.Now().Format(time.RFC3339)
	if err := os.WriteFile(log, []byte(at+" bad evil.example\n"+at+" bad liar.example\n"+at+" bad nobody.example\n"+at+" good other.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	forward := map[string][]string{"evil.example": {"198.51.100.7", "192.0.2.1"}, "liar.example": {"192.0.2.1"}, "other.example": {"203.0.113.1"}}
	reverse := map[string][]string{"198.51.100.7": {"EVIL.example."}, "192.0.2.1": {"victim.example."}, "203.0.113.1": {"other.example."}}
	asked := map[string]bool{}
	var got []Decision
	d, err := New(Options{
		Jails: []Jail{{Definition: &topics.Definition{Name: "door", Target: "ip", Detect: &topics.Detect{
			Files: []string{log}, UseDNS: true, MaxRetry: 1, FindTime: span.Of(time.Hour), BanTime: span.Of(time.Hour),
			Rules: []topics.Rule{{Class: ban.ClassAuth, Regex: []string{`^ bad <HOST>$`}}},
		}}}},
		Resolve: func(_ context.Context, name string) ([]string, error) {
			asked[name] = true
			if forward[name] == nil {
				return nil, errors.New("no such host")
			}
			return forward[name], nil
		},
		Reverse: func(_ context.Context, addr string) ([]string, error) { return reverse[addr], nil },
		Ban:     func(_ context.Context, v Decision) error { got = append(got, v); return nil },
		Source:  source.Options{Once: true, Start: source.StartBeginning},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Target != ban.MustTarget("198.51.100.7") || !got[0].Weak || !got[0].Named {
		t.Errorf("decided %+v", got)
	}
	if asked["other.example"] || len(asked) != 3 {
		t.Errorf("asked for %v; only names in lines that match are looked up", asked)
	}
}
