package ledger

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// model is a ledger kept in the most obvious way.
type model struct {
	feeds  map[ban.Feed]map[ban.Target]policy.Vote
	own    map[ban.Target]policy.Vote
	exempt map[string]Exemption
	never  policy.Protection
	policy *policy.Policy
}

// enforced asks policy about every target, with the votes of everything that
// contains it.
func (m *model) enforced(now time.Time) map[ban.Target]time.Time {
	all := map[ban.Target]time.Time{} // and when its last claim ends
	for _, f := range append(slices.Collect(maps.Values(m.feeds)), m.own) {
		for t, v := range f {
			if v.End.After(now) && v.End.After(all[t]) {
				all[t] = v.End
			}
		}
	}
	var allowed, unbanned shieldList
	for _, e := range m.exempt {
		if e.over(now) {
			continue
		}
		if e.Allow {
			allowed = append(allowed, e)
		} else {
			unbanned = append(unbanned, e)
		}
	}
	covers := func(wide, narrow ban.Target) bool {
		w, _ := wide.Prefix()
		n, _ := narrow.Prefix()
		return w.Bits() <= n.Bits() && w.Overlaps(n)
	}
	enforced := map[ban.Target]time.Time{}
	for t, last := range all {
		var votes []policy.Vote
		for _, f := range append(slices.Collect(maps.Values(m.feeds)), m.own) {
			for on, v := range f {
				if covers(on, t) && v.End.After(now) {
					votes = append(votes, v)
				}
			}
		}
		v := m.policy.Judge(policy.Question{
			Topic: "sshd", Target: t, Votes: votes, NeverBan: m.never, Allowed: allowed, Exempt: unbanned, Now: now,
		})
		if v.Action == policy.Ban {
			enforced[t] = v.Until
			if last.Before(v.Until) {
				enforced[t] = last
			}
		}
	}
	return enforced
}

type shieldList []Exemption

func (s shieldList) Protects(t ban.Target) (string, bool) {
	p, _ := t.Prefix()
	for _, e := range s {
		if q, _ := e.Target.Prefix(); q.Overlaps(p) {
			return "x", true
		}
	}
	return "", false
}

// essence leaves out targets inside another banned prefix that is banned at
// least as long: whether it is told again makes no difference to a packet.
func essence(banned map[ban.Target]time.Time) map[ban.Target]time.Time {
	kept := map[ban.Target]time.Time{}
	for t, until := range banned {
		p, _ := t.Prefix()
		redundant := false
		for other, longer := range banned {
			q, _ := other.Prefix()
			redundant = redundant || q.Bits() < p.Bits() && q.Overlaps(p) && !longer.Before(until)
		}
		if !redundant {
			kept[t] = until
		}
	}
	return kept
}

// memory gives a directory that needs no disk where there is one: the test
// kills the ledger, not the machine.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "ledger")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestTheLedgerIsItsModel: under claims, withdrawals, resets, own bans, unbans,
// allowances, changed rules, changed protections, time and kills at any moment,
// the bans in force are policy's verdicts on everything that is claimed, nothing
// protected is among it, and the changes that enforcers hear add up to it.
func TestTheLedgerIsItsModel(t *testing.T) {
	dir := memory(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprint(run))
		now := t0
		open := func(p *policy.Policy, never policy.Protection) *Ledger {
			s, err := store.Open(path)
			if err != nil {
				t.Fatalf("%v", err)
			}
			l, err := Open(Options{Store: s, Policy: p, NeverBan: never, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatalf("%v", err)
			}
			return l
		}
		limits := &policy.LimitsSource{PerHour: ptr(1 << 24), Live: ptr(1 << 24), Addresses: ptr(1<<31 - 1), Decided: ptr(1 << 24), Strikes: ptr(1000)}
		drawPolicy := func() *policy.Policy {
			s := policy.Source{Operators: map[string]policy.OperatorSource{}, Topics: map[string]policy.TopicSource{"sshd": {
				Ban:    rapid.SampledFrom([]string{"any of everyone", "2 of everyone", "any of alice or 2 of bob, carol", "never"}).Draw(t, "ban"),
				Watch:  "any of everyone",
				Prefix: rapid.SampledFrom([][]string{nil, {"v4/24", "v6/48"}}).Draw(t, "prefix"), Limits: limits,
			}}}
			for _, n := range []string{"alice", "bob", "carol"} {
				s.Operators[n] = policy.OperatorSource{ID: op(n).String()}
			}
			p, err := policy.Compile(s, nil)
			if err != nil {
				t.Fatalf("%v", err)
			}
			return p
		}
		drawNever := func() policy.Protection {
			return rapid.SampledFrom([]policy.Protection{never(nil), never{netip.MustParsePrefix("9.0.0.1/32")}, never{netip.MustParsePrefix("9.0.1.0/24"), netip.MustParsePrefix("2a00::/128")}}).Draw(t, "never")
		}
		targets := []ban.Target{}
		for _, s := range []string{"9.0.0.1", "9.0.0.2", "9.0.1.1", "9.0.0.0/24", "9.0.0.0/25", "9.0.0.0/16", "2a00::", "2a00::/64", "2a00::1", "2a00:0:0:1::/64", "2a00::/48"} {
			targets = append(targets, ban.MustTarget(s))
		}
		drawTarget := func() ban.Target { return rapid.SampledFrom(targets).Draw(t, "target") }
		drawEnd := func() time.Time {
			return now.Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "minutes")) * time.Minute).Truncate(time.Minute).Add(time.Minute)
		}
		m := &model{feeds: map[ban.Feed]map[ban.Target]policy.Vote{}, own: map[ban.Target]policy.Vote{}, exempt: map[string]Exemption{}, never: never(nil), policy: drawPolicy()}
		l := open(m.policy, m.never)
		defer func() { l.store.Close() }()
		kernel := map[ban.Target]time.Time{}
		take := func() {
			for {
				list := l.Enforcement.Take(2)
				for _, c := range list {
					if c.Ban {
						kernel[c.Target] = c.Until
					} else {
						delete(kernel, c.Target)
					}
				}
				if len(list) == 0 {
					return
				}
			}
		}
		say := func(f ban.Feed, c ban.Claim) {
			v := policy.Vote{Claim: c, Operator: f.Operator, Since: now}
			if old, ok := m.feeds[f][c.Target]; ok && !c.End.After(old.End) && old.End.After(now) {
				v.Since = old.Since
			}
			m.feeds[f][c.Target] = v
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			f := feed(rapid.SampledFrom([]string{"alice", "bob", "carol", "mallory"}).Draw(t, "feed"))
			if m.feeds[f] == nil {
				m.feeds[f] = map[ban.Target]policy.Vote{}
			}
			switch step := rapid.IntRange(0, 9).Draw(t, "step"); step {
			case 0, 1, 2, 3: // claims, perhaps as a reset
				c := ban.Change{Feed: f, Reset: step == 3}
				if c.Reset {
					for target := range m.feeds[f] {
						delete(m.feeds[f], target)
					}
				}
				seen := map[ban.Target]bool{}
				for range rapid.IntRange(0, 4).Draw(t, "claims") {
					target := drawTarget()
					if seen[target] {
						continue
					}
					seen[target] = true
					claim := ban.Claim{Target: target, End: drawEnd(), Hits: uint8(rapid.IntRange(0, 3).Draw(t, "hits")), Basis: ban.BasisStrong}
					c.Claims = append(c.Claims, claim)
					say(f, claim)
				}
				if err := l.Peers.Apply(c); err != nil {
					t.Fatalf("%v", err)
				}
			case 4: // a withdrawal
				target := drawTarget()
				delete(m.feeds[f], target)
				if err := l.Peers.Apply(ban.Change{Feed: f, Withdrawn: ban.Withdraw(ban.ReasonEnded, target)}); err != nil {
					t.Fatalf("%v", err)
				}
			case 5: // an own ban
				c := ban.Claim{Target: drawTarget(), End: drawEnd(), Hits: 1, Basis: ban.BasisStrong}
				err := l.Own.Ban(Local{Topic: "sshd", Source: SourceHand, Claim: c})
				_, protected := m.never.Protects(c.Target)
				for _, e := range m.exempt {
					if e.Allow && !e.over(now) {
						_, hit := shieldList{e}.Protects(c.Target)
						protected = protected || hit
					}
				}
				if (err != nil) != protected {
					t.Fatalf("banning %v: %v, protected %v", c.Target, err, protected)
				}
				if err == nil {
					if old, ok := m.own[c.Target]; ok && old.End.After(c.End) {
						c.End = old.End
					}
					m.own[c.Target] = policy.Vote{Own: true, Since: now, Claim: c}
				}
			case 6: // unban or allow
				e := Exemption{Target: drawTarget(), Allow: rapid.Bool().Draw(t, "allow"), Until: now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "minutes")) * time.Minute)}
				var err error
				if e.Allow {
					_, err = l.Exemptions.Allow(e.Target, e.Until, "")
				} else {
					_, err = l.Exemptions.Unban(e.Target, e.Until.Sub(now), "")
				}
				if err != nil {
					t.Fatalf("%v", err)
				}
				m.exempt[e.key()] = e
				for target := range m.own {
					if _, hit := (shieldList{e}).Protects(target); hit {
						delete(m.own, target)
					}
				}
			case 7: // time
				now = now.Add(time.Duration(rapid.IntRange(1, 7200).Draw(t, "seconds")) * time.Second)
				l.Expire(now)
			case 8: // new rules or protections
				if rapid.Bool().Draw(t, "rules") {
					m.policy = drawPolicy()
					l.SetPolicy(m.policy)
				} else {
					m.never = drawNever()
					l.SetNeverBan(m.never, nil)
				}
			case 9: // a kill and a restart: the federation replays its store
				l.store.Close()
				l = open(m.policy, m.never)
				kernel = map[ban.Target]time.Time{}
				for _, e := range l.Enforcement.Desired() {
					kernel[e.Target] = e.Until
				}
				for f, votes := range m.feeds {
					c := ban.Change{Feed: f, Reset: true}
					for _, v := range votes {
						c.Claims = append(c.Claims, v.Claim)
					}
					if err := l.Peers.Apply(c); err != nil {
						t.Fatalf("%v", err)
					}
				}
			}
			take()
			// Lapses show after at most a slot; the kernel times them itself.
			want := m.enforced(now)
			for target, until := range kernel {
				if !until.After(now) {
					delete(kernel, target)
				}
			}
			if !maps.EqualFunc(essence(kernel), essence(want), time.Time.Equal) {
				t.Fatalf("at %v enforcers were told\n%v\nand the model says\n%v", now.Sub(t0), kernel, want)
			}
			for target := range kernel {
				if _, hit := m.never.Protects(target); hit {
					t.Fatalf("%v is protected and banned", target)
				}
			}
		}
	})
}

// FuzzRecords: no bytes of a damaged state file crash the ledger, and a record
// that decodes is written back as it was.
func FuzzRecords(f *testing.F) {
	o := ownRecord{topic: "sshd", source: SourceHand, claim: ban.Claim{Target: ban.MustTarget("9.0.0.1"), End: time.Unix(5, 0), Class: 200, Hits: 3, Established: true, Basis: ban.BasisStrong}, since: 4, proof: Evidence{By: "x"}}
	f.Add(o.append(nil))
	o.removed = true
	f.Add(o.append(nil))
	f.Add(appendTarget(appendTarget(appendArrivalHead(nil, 700, 9, queued), ban.MustTarget("2a00::/48")), ban.MustTarget("9.0.0.1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o ownRecord
		if o.decode(b) == nil {
			var again ownRecord
			if err := again.decode(o.append(nil)); err != nil || again != o || string(o.append(nil)) != string(b) {
				t.Fatalf("%+v became %+v, %v", o, again, err)
			}
		}
		var back []byte
		if err := eachArrival(b, func(feed uint16, a arrived) {
			if back == nil {
				back = appendArrivalHead(nil, feed, a.since, a.hold)
			}
			back = appendKey(back, &a.key)
		}); err == nil && string(back) != string(b) {
			t.Fatalf("%x does not give the same bytes: %x", b, back)
		}
		_ = eachRecord(b, func([]byte) error { return nil })
	})
}
