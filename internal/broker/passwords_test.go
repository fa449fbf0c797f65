package broker

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyTheRightPasswordMatchesItsHash(t *testing.T) {
	t.Parallel()
	hash, err := HashPassword("secret")
	if err != nil || CheckHash(hash) != nil {
		t.Fatal(err, CheckHash(hash))
	}
	p := newPasswords()
	verdict := func(hash, password string) bool {
		ok, err := p.check(t.Context(), netip.Addr{}, hash, []byte(password))
		if err != nil {
			t.Error(err)
		}
		return ok
	}
	for range 2 { // the second time from memory
		if !verdict(hash, "secret") || verdict(hash, "Secret") || verdict("", "") {
			t.Error("wrong verdict")
		}
	}
	if CheckHash("secret") == nil || CheckHash("pbkdf2-sha256$0$$") == nil {
		t.Error("what is no hash passed")
	}
}

// cheapHash is quick to check: the test is about who waits for whom.
const cheapHash = "pbkdf2-sha256$1$c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestPasswordsAreCheckedInParallelUnderALimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		from   func(i int) netip.Addr
		hash   func(i int) string
		passes int // computations at once
		all    int // computations
	}{
		{"many addresses", func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }, func(int) string { return cheapHash }, 3, 12},
		{"one address", func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }, func(int) string { return cheapHash }, 1, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPasswords()
				p.slots = make(chan struct{}, 3)
				var now, most, all atomic.Int32
				p.testingOnlyComputed = func() {
					if n := now.Add(1); n > most.Load() {
						most.Store(n)
					}
					time.Sleep(20 * time.Millisecond)
					now.Add(-1)
					all.Add(1)
				}
				var wait sync.WaitGroup
				for i := range 12 {
					wait.Go(func() {
						if ok, err := p.check(t.Context(), c.from(i), c.hash(i), []byte{byte(i)}); ok || err != nil {
							t.Error(ok, err)
						}
					})
				}
				wait.Wait()
				if int(most.Load()) != c.passes || int(all.Load()) != c.all {
					t.Errorf("%d at once and %d in all, want %d and %d", most.Load(), all.Load(), c.passes, c.all)
				}
				if len(p.busy)+len(p.flying) != 0 {
					t.Error("somebody is remembered for nothing")
				}
			})
		})
	}
}

// A thousand readers of a shared account come back at once: one computation.
func TestAPasswordThatManySendAtOnceIsComputedOnce(t *testing.T) {
	t.Parallel()
	hash, err := HashPassword("shared")
	if err != nil {
		t.Fatal(err)
	}
	p := newPasswords()
	var all atomic.Int32
	p.testingOnlyComputed = func() { all.Add(1) }
	var wait sync.WaitGroup
	for range 1000 {
		wait.Go(func() {
			if ok, err := p.check(t.Context(), netip.Addr{}, hash, []byte("shared")); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
	wait.Wait()
	if n := all.Load(); n != 1 {
		t.Errorf("%d computations", n)
	}
}

// Whoever guesses from one address neither keeps others waiting, nor makes a
// right password wrong: who runs out of time is told so.
func TestACheckThatRunsOutOfTimeIsNoWrongPassword(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords()
		p.testingOnlyComputed = func() { time.Sleep(time.Second) }
		guesser := netip.MustParseAddr("192.0.2.1")
		for i := range 5 {
			go func() { _, _ = p.check(t.Context(), guesser, cheapHash, []byte{byte(i)}) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if _, err := p.check(ctx, guesser, cheapHash, []byte("late")); err == nil {
			t.Error("the guesser's sixth was checked at once")
		}
		began := time.Now()
		if _, err := p.check(t.Context(), netip.MustParseAddr("198.51.100.1"), cheapHash, []byte("other")); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > time.Second { // of the clock of the test
			t.Errorf("another address waited %v", d)
		}
		time.Sleep(10 * time.Second)
	})
}
