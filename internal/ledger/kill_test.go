package ledger

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// stored are the feeds as the federation keeps them: it writes them in the
// transaction in which the ledger writes when claims arrived.
type stored map[ban.Feed]map[ban.Target]ban.Claim

func (s stored) take(c ban.Change) {
	if c.Reset || s[c.Feed] == nil {
		s[c.Feed] = map[ban.Target]ban.Claim{}
	}
	for _, claim := range c.Claims {
		s[c.Feed][claim.Target] = claim
	}
	for _, w := range c.Withdrawn {
		delete(s[c.Feed], w.Target)
	}
}

// replay gives the feeds to a ledger, as a start does.
func (s stored) replay(l *Ledger) error {
	for f, claims := range s {
		c := ban.Change{Feed: f, Reset: true, Claims: slices.SortedFunc(maps.Values(claims), ban.Claim.Compare)}
		if err := l.Peers.Apply(c); err != nil {
			return err
		}
	}
	return nil
}

// snapshot is everything that a kill must not change.
func snapshot(l *Ledger, now time.Time) (lines []string) {
	for topic := range l.table.byTopic {
		for r := range l.table.records(topic) {
			s := l.standing(r, now)
			for _, c := range s.Claims {
				lines = append(lines, fmt.Sprint(s.Target, s.Action, s.Why, s.Until, c.Feed, c.Source, c.Target, c.End, c.Since, c.Class, c.Basis, c.WhyNot))
			}
		}
	}
	for _, h := range l.Peers.Holds() {
		lines = append(lines, fmt.Sprint(h.Feed, h.Why, h.Claims, h.Since))
	}
	for _, p := range l.Peers.List() {
		lines = append(lines, fmt.Sprint(p.Name, p.Strikes, p.Quarantine, p.Withdrawn))
	}
	slices.Sort(lines)
	return lines
}

// without gives the lines of a that are not in b.
func without(a, b []string) (list []string) {
	for _, line := range a {
		if !slices.Contains(b, line) {
			list = append(list, line)
		}
	}
	return list
}

// TestAKillAtAnyTimeChangesNoVerdict: whenever a ledger is killed, with nothing
// but its file it says of every target after the next start the same as
// before: the same claims, arrived at the same time, waiting for the same.
func TestAKillAtAnyTimeChangesNoVerdict(t *testing.T) {
	dir := memory(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprint(run))
		now := t0
		p, err := policy.Compile(policy.Source{
			Operators: map[string]policy.OperatorSource{"alice": {ID: op("alice").String()}, "bob": {ID: op("bob").String()}},
			Topics: map[string]policy.TopicSource{"sshd": {
				Ban: "any of everyone", Watch: "any of everyone", TTL: "3h",
				Limits: &policy.LimitsSource{PerHour: ptr(6), Turnover: ptr(1), Live: ptr(20), Strikes: ptr(2)},
			}},
		}, nil)
		if err != nil {
			t.Fatalf("%v", err)
		}
		open := func() *Ledger {
			s, err := store.Open(path)
			if err != nil {
				t.Fatalf("%v", err)
			}
			l, err := Open(Options{Store: s, Policy: p, Now: func() time.Time { return now }, NeverBan: never{netip.MustParsePrefix("10.0.0.0/32")}})
			if err != nil {
				t.Fatalf("%v", err)
			}
			return l
		}
		feeds := stored{}
		l := open()
		defer func() { l.store.Close() }()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			f := node(rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "operator"), rapid.IntRange(1, 2).Draw(t, "node"))
			draw := func() ban.Claim {
				c := many(rapid.IntRange(0, 40).Draw(t, "target"), 1, 0)[0]
				c.End = now.Add(time.Duration(rapid.IntRange(1, 8).Draw(t, "hours")) * time.Hour)
				c.Class, c.Basis = ban.Class(rapid.IntRange(0, 31).Draw(t, "class")), ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis"))
				return c
			}
			var err error
			switch rapid.SampledFrom([]string{"claims", "claims", "reset", "withdraw", "ban", "approve", "time"}).Draw(t, "step") {
			case "claims":
				c := ban.Change{Feed: f}
				for range rapid.IntRange(1, 9).Draw(t, "claims") {
					c.Claims = append(c.Claims, draw())
				}
				err = l.Peers.ApplyAll(slices.Values([]ban.Change{c}), func(store.Tx) error { feeds.take(c); return nil })
			case "reset":
				c := ban.Change{Feed: f, Reset: true}
				for range rapid.IntRange(0, 9).Draw(t, "claims") {
					c.Claims = append(c.Claims, draw())
				}
				err = l.Peers.ApplyAll(slices.Values([]ban.Change{c}), func(store.Tx) error { feeds.take(c); return nil })
			case "withdraw":
				c := ban.Change{Feed: f, Withdrawn: ban.Withdraw(ban.ReasonMistake, draw().Target)}
				err = l.Peers.ApplyAll(slices.Values([]ban.Change{c}), func(store.Tx) error { feeds.take(c); return nil })
			case "ban":
				_, err = l.Own.BanAll([]Local{{Topic: "sshd", Source: SourceHand, Claim: draw()}})
			case "approve":
				_, _ = l.Peers.Approve(f.Operator, "", 0) // there may be nothing that waits
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(1, 5000).Draw(t, "seconds")) * time.Second)
				l.Expire(now)
			}
			if err != nil {
				t.Fatalf("%v", err)
			}
			before := snapshot(l, now)
			if rapid.IntRange(0, 2).Draw(t, "kill") > 0 {
				continue
			}
			l.store.Close()
			l = open()
			if err := feeds.replay(l); err != nil {
				t.Fatalf("%v", err)
			}
			if after := snapshot(l, now); !slices.Equal(before, after) {
				t.Fatalf("lost in the kill: %q\nnew after it: %q", without(before, after), without(after, before))
			}
		}
	})
}

// A store that fails makes nothing count that it did not take, and loses
// nothing.
func TestClaimsCountWhenTheirArrivalIsWritten(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{}, "alice")})
	full := fmt.Errorf("the disk is full")
	c := ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 3, time.Hour)}
	for range 2 { // the federation gives it again
		if err := w.Peers.ApplyAll(slices.Values([]ban.Change{c}), func(store.Tx) error { return full }); err == nil {
			t.Fatal("no error")
		}
		if got := w.Enforcement.Take(10); len(got) != 0 {
			t.Fatalf("enforcers heard %v", got)
		}
	}
	w.now = w.now.Add(time.Second)
	w.must(w.Peers.ApplyAll(slices.Values([]ban.Change{c}), func(store.Tx) error { return nil }))
	w.wantBanned(3, "when it could be written")
	w.restart()
	w.must(w.Peers.Apply(c))
	w.wantBanned(3, "after a kill")
	for _, claim := range c.Claims {
		if s := w.Explain(claim.Target).Standings[0].Claims[0].Since; !s.Equal(t0) {
			t.Errorf("%s came at %v", claim.Target, s)
		}
	}
}

// A claim that is renewed counts from then on, also where nothing of it changed.
func TestAnUnchangedClaimThatIsRenewedCountsAgain(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice", TTL: "4h"}, "alice")})
	same := many(0, 1, 48*time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: same}))
	w.now = t0.Add(5 * time.Hour)
	w.Expire(w.now)
	w.wantBanned(0, "after its ttl")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: same}))
	w.wantBanned(1, "when it is said again")
	w.now = t0.Add(8 * time.Hour)
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: same}))
	w.wantBanned(1, "after a restart")
	w.now = t0.Add(10 * time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: same}))
	w.wantBanned(0, "and the whole feed, sent once more, renews nothing")
}

// However much arrives, the journal has at most twice the arrivals that count.
func TestTheStoredLedgerKeepsUpWithArrival(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{PerHour: ptr(1 << 24)}, "alice")})
	for second := range 1800 {
		w.now = t0.Add(time.Duration(second) * time.Second)
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(second*14, 14, time.Duration(second+60)*time.Second)}))
		w.Expire(w.now)
	}
	if kept, live := w.feeds.journal.records, w.Stats().Claims; kept > 2*live+2*slack {
		t.Errorf("%d arrivals are kept for %d claims", kept, live)
	}
}
