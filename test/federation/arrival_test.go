package federation

import (
	"testing"
	"time"

	"banmesh/internal/control"
)

// arrived gives when a claim of a target came to the node.
func (n *node) arrived(target string) (since time.Time) {
	n.t.Helper()
	var x control.Explanation
	if err := n.client.Get(n.t.Context(), "/v1/explain", map[string][]string{"target": {target}}, &x); err != nil {
		n.t.Fatal(err)
	}
	for _, s := range x.Standings {
		for _, c := range s.Claims {
			since = c.Since
		}
	}
	return since
}

// TestAKillForgetsNoArrival kills a subscriber right after claims came, as a
// power cut would: afterwards each is dated as before, and counts for as long,
// by the time at which it came and not by the time at which the feed was first
// heard.
func TestAKillForgetsNoArrival(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	want := []string{"203.0.113.1"}
	alice.bans(want...)
	eventually(t, "bob has the first", bob.has(want...))
	arrivals := map[string]time.Time{want[0]: bob.arrived(want[0])}
	for _, next := range []string{"203.0.113.2", "203.0.113.3", "203.0.113.4"} {
		// Dates are whole seconds: the next claim comes in a later one.
		eventually(t, "a second passes", func() bool { return time.Since(arrivals[want[len(want)-1]]) >= 2*time.Second })
		want = append(want, next)
		alice.bans(next)
		eventually(t, "bob has "+next, bob.has(want...))
		arrivals[next] = bob.arrived(next)
		bob.kill()
		bob.start()
		if got := bob.banned(); len(got) != len(want) {
			t.Fatalf("after the kill bob has %v, want %v", got, want)
		}
		for target, at := range arrivals {
			if got := bob.arrived(target); !got.Equal(at) {
				t.Errorf("after the kill %s came at %v, before at %v", target, got, at)
			}
		}
	}
	if first, last := arrivals[want[0]], arrivals[want[3]]; !last.After(first.Add(5 * time.Second)) {
		t.Errorf("the claims came at %v and %v: the test shows nothing", first, last)
	}
	// The same without a broker: the date is on this disk.
	bob.kill()
	b.stop()
	bob.start()
	for target, at := range arrivals {
		if got := bob.arrived(target); !got.Equal(at) {
			t.Errorf("without a broker %s came at %v, before at %v", target, got, at)
		}
	}
}
