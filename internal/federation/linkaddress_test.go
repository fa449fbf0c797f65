package federation

import (
	"testing"
	"time"
)

func TestALinkKeepsAwayFromAnAddressThatHandsOutNothingNew(t *testing.T) {
	t.Parallel()
	bad := map[string]bool{}
	l, err := newLink(0, Broker{
		URL: "tcp://a:1883", Others: []string{"tcp://b:1883", "tcp://c:1883"},
		Avoid: func(address string) bool { return bad[address] },
	})
	if err != nil {
		t.Fatal(err)
	}
	follow := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if l.url = l.next(); l.url.Host != w+":1883" {
				t.Errorf("it goes to %s, want %s", l.url.Host, w)
			}
			l.attempted(false)
		}
	}
	follow("b", "c", "a")
	l.attempted(true)
	bad["tcp://b:1883"] = true
	// As many failures as addresses, and the avoided one is tried, too.
	follow("c", "a", "c", "a", "b")
	l.attempted(true)
	bad["tcp://a:1883"], bad["tcp://c:1883"] = true, true
	follow("c", "a", "b") // all are equally bad
}

func TestALinkLeavesAnAddressThatTurnsBadWhereAnotherIsBetter(t *testing.T) {
	t.Parallel()
	bad := map[string]bool{}
	now := time.Unix(1_800_000_000, 0)
	l, err := newLink(0, Broker{URL: "tcp://a:1883", Others: []string{"tcp://b:1883"}, Avoid: func(address string) bool { return bad[address] }})
	if err != nil {
		t.Fatal(err)
	}
	leaves := func(after time.Duration) bool {
		l.cut, l.connected, l.since = make(chan struct{}), true, now
		now = now.Add(after)
		l.leaveAvoided(now)
		select {
		case <-l.cut:
			return true
		default:
			return false
		}
	}
	if leaves(time.Hour) {
		t.Error("it leaves a good address")
	}
	bad["tcp://a:1883"] = true
	if leaves(moveLeast-1) || !leaves(moveLeast) {
		t.Errorf("it does not leave after %v", moveLeast)
	}
	if leaves(2*moveLeast-1) || !leaves(2*moveLeast) {
		t.Error("a better address that never answers is tried more and more rarely")
	}
	bad["tcp://b:1883"] = true
	if leaves(moveMost) {
		t.Error("it leaves for an address that is no better")
	}
}
