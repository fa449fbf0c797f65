package nft

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

// A ruleset that was saved before an unban and a ban has as many bans as the one
// in force, and none of its tables, chains and sets differs.
func TestARestoredRulesetIsNoCuredOne(t *testing.T) {
	for name, size := range map[string]int{"read back": 500, "counted": 2 * readBack} {
		t.Run(name, func(t *testing.T) {
			testnet.Enter(t)
			ctx := testnet.Context(t)
			n := newTest(t, Options{})
			testnet.Must(t, n.Configure(ctx, simple()))
			all := many(size+3, 1)
			testnet.Must(t, n.Replace(ctx, slices.Values(all[:size])))
			saved := testnet.Run(t, "nft", "list", "ruleset")
			testnet.Must(t, n.Apply(ctx, all[size:], []firewall.Key{all[3].Key(), all[4].Key(), all[5].Key()}))
			_, err := n.Check(ctx)
			testnet.Must(t, err)
			testnet.Feed(t, "flush ruleset\n"+saved, "nft", "-f", "-")
			d, err := n.Check(ctx)
			if err != nil || !d.Changed || !d.Cured || !strings.Contains(strings.Join(d.What, "; "), "replaced") {
				t.Errorf("%+v, %v", d, err)
			}
			inStep(t, n)
			if d, err := n.Check(ctx); err != nil || d.Changed {
				t.Errorf("still drift: %+v, %v", d, err)
			}
		})
	}
}

func TestEachElementOfAMapThatAnotherChangedIsLookedAt(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(append(many(1_500, 1), bans("sshd", time.Now().Add(time.Hour), "192.0.2.1", "192.0.2.2", "198.51.100.0/24", "203.0.113.0/24")...))))
	for name, edit := range map[string]string{
		"one more, one less":           "delete element inet banmesh deny4 { 192.0.2.1 }; add element inet banmesh deny4 { 192.0.2.9 timeout 1h : CLASS }",
		"one for ever":                 "delete element inet banmesh deny4 { 192.0.2.2 }; add element inet banmesh deny4 { 192.0.2.2 : CLASS }",
		"one for a day":                "delete element inet banmesh deny4 { 192.0.2.2 }; add element inet banmesh deny4 { 192.0.2.2 timeout 1d : CLASS }",
		"a prefix more, a prefix less": "delete element inet banmesh deny4c { 198.51.100.0/24 }; add element inet banmesh deny4c { 192.0.2.0/24 timeout 1h : CLASS }",
	} {
		class := n.state.Classes[n.state.Get(testnet.Prefix("192.0.2.2")).Class].ID
		edit = strings.ReplaceAll(edit, "CLASS", fmt.Sprintf("0x%08x", class))
		testnet.Feed(t, edit, "nft", "-f", "-")
		d, err := n.Check(ctx)
		if err != nil || !d.Changed || !d.Cured {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		inStep(t, n)
		if listed := testnet.Run(t, "nft", "list", "map", "inet", "banmesh", "deny4"); strings.Contains(listed, "192.0.2.2 :") || strings.Contains(listed, "timeout 1d ") {
			t.Errorf("%s: it ends another time:\n%s", name, listed)
		}
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Errorf("%s: still drift: %+v, %v", name, d, err)
		}
	}
}

// A map that is too large to be read back is looked at ban by ban over some checks, so
// that one more and one less, which counting does not see, is noticed and mended.
func TestEachElementOfALargeMapThatAnotherChangedIsLookedAt(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(append(many(2*readBackOnce, 1), bans("sshd", time.Now().Add(time.Hour), "192.0.2.2")...))))
	for range 2 {
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	class := n.state.Classes[n.state.Get(testnet.Prefix("192.0.2.2")).Class].ID
	testnet.Feed(t, fmt.Sprintf("delete element inet banmesh deny4 { 192.0.2.2 }; add element inet banmesh deny4 { 192.0.2.9 timeout 1h : 0x%08x }", class), "nft", "-f", "-")
	noticed := 0
	// The walk that had begun may have passed the ban already; the next one meets it.
	const walk = 2*readBackOnce/walkMost + 1
	for checks := range 2 * walk {
		d, err := n.Check(ctx)
		testnet.Must(t, err)
		if d.Changed {
			noticed = checks + 1
			break
		}
	}
	if noticed == 0 {
		t.Fatal("not noticed")
	}
	// Strangers go when bans that have just ended are counted no longer.
	n.suspectAt = n.suspectAt.Add(-2 * countSlack * time.Second)
	_, err := n.Check(ctx)
	testnet.Must(t, err)
	inStep(t, n)
}

// A kill between the ledger's record and the kernel leaves a ban that nobody
// wants: it goes, and no other program is blamed.
func TestABanThatAKillLeftGoes(t *testing.T) {
	for name, x := range map[string]struct{ size, written int }{"alone": {5_000, 1_500}, "of many": {2 * readBackOnce, 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			testnet.Enter(t)
			ctx := testnet.Context(t)
			all := many(x.size, 1)
			n := newTest(t, Options{})
			testnet.Must(t, n.Configure(ctx, simple()))
			testnet.Must(t, n.Replace(ctx, slices.Values(all[:x.size-10])))
			testnet.Must(t, n.Apply(ctx, all[x.size-10:], nil))
			n.closed = true
			testnet.Must(t, n.k.close())
			testnet.Must(t, unix.Close(n.lock))

			start := time.Now()
			now, log, written := start, bytes.Buffer{}, 0
			o := Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }}
			o.testing.mono = func() time.Duration { return now.Sub(start) }
			o.testing.stall = func(done, _ int) { written += done }
			n = newTest(t, o)
			testnet.Must(t, n.Configure(ctx, simple()))
			// The ledger knows of two unbans that the kernel does not.
			testnet.Must(t, n.Replace(ctx, slices.Values(all[:x.size-2])))
			for range 3 {
				now = now.Add(2 * time.Second)
				if d, err := n.Check(ctx); err != nil || d.Changed {
					t.Errorf("%+v, %v", d, err)
				}
			}
			inStep(t, n)
			if strings.Contains(log.String(), "another program") {
				t.Errorf("log:\n%s", log.String())
			}
			if written > x.written {
				t.Errorf("%d bans were written again", written)
			}
		})
	}
}

// nftables.service loads at boot the ruleset that somebody saved: its bans have
// as long to go as when they were saved, and some have ended meanwhile.
func TestARulesetThatWasSavedAndLoadedAtBootEndsOnTime(t *testing.T) {
	for name, size := range map[string]int{"read back": 300, "counted": readBackOnce + 2_000} {
		t.Run(name, func(t *testing.T) {
			testnet.Enter(t)
			ctx := testnet.Context(t)
			n := newTest(t, Options{})
			testnet.Must(t, n.Configure(ctx, simple()))
			all := many(size, 1)
			testnet.Must(t, n.Replace(ctx, slices.Values(append(bans("sshd", time.Now().Add(time.Hour), "192.0.2.1", "192.0.2.2"), all...))))
			saved := testnet.Run(t, "nft", "list", "ruleset")
			testnet.Must(t, n.Close())

			// Two days later; 192.0.2.2 has ended, and every other ban is renewed.
			testnet.Enter(t)
			testnet.Feed(t, saved, "nft", "-f", "-")
			start := time.Now().Add(48 * time.Hour)
			now := start
			o := Options{Now: func() time.Time { return now }}
			o.testing.mono = func() time.Duration { return now.Sub(start) }
			n = newTest(t, o)
			testnet.Must(t, n.Configure(ctx, simple()))
			wanted := bans("sshd", start.Add(10*time.Minute), "192.0.2.1")
			for _, b := range all[:size-5] {
				b.Until = b.Until.Add(48 * time.Hour)
				wanted = append(wanted, b)
			}
			testnet.Must(t, n.Replace(ctx, slices.Values(wanted)))
			for range 3 {
				_, err := n.Check(ctx)
				testnet.Must(t, err)
				now = now.Add(2 * time.Second)
			}
			inStep(t, n)
			if listed := testnet.Run(t, "nft", "get", "element", "inet", "banmesh", "deny4", "{ 192.0.2.1 }"); !strings.Contains(listed, "timeout 10m") && !strings.Contains(listed, "timeout 9m") {
				t.Errorf("it ends another time:\n%s", listed)
			}
		})
	}
}
