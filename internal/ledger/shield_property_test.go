package ledger

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
)

// drawPrefix draws among few addresses, so that prefixes nest and overlap.
func drawPrefix(t *rapid.T, name string) netip.Prefix {
	if rapid.Bool().Draw(t, name+" is IPv4") {
		a := netip.AddrFrom4([4]byte{45, byte(rapid.IntRange(0, 1).Draw(t, name)), byte(rapid.IntRange(0, 2).Draw(t, name)), byte(rapid.IntRange(0, 3).Draw(t, name))})
		p, _ := a.Prefix(rapid.SampledFrom([]int{8, 15, 16, 23, 24, 30, 31, 32, 32, 32}).Draw(t, name+" bits"))
		return p
	}
	a := netip.AddrFrom16([16]byte{0x2a, 1, 0, byte(rapid.IntRange(0, 1).Draw(t, name)), 0, 0, 0, byte(rapid.IntRange(0, 1).Draw(t, name)), 15: byte(rapid.IntRange(0, 2).Draw(t, name))})
	p, _ := a.Prefix(rapid.SampledFrom([]int{19, 32, 48, 63, 64, 64, 65, 128, 128}).Draw(t, name+" bits"))
	return p
}

// TestNothingVitalIsEverInForce: whatever peers and this node claim, in any
// order with changes of the vital and the allowed targets, the bans in force
// never overlap it, in neither direction.
func TestNothingVitalIsEverInForce(t *testing.T) {
	enforced, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		source := policy.Source{
			Operators: map[string]policy.OperatorSource{"alice": {ID: op("alice").String()}, "bob": {ID: op("bob").String()}},
			Topics:    map[string]policy.TopicSource{"sshd": {Ban: "any of everyone", Prefix: []string{"v4/8", "v6/19"}}},
		}
		p, err := policy.Compile(source, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Policy: p, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		var vital, foreign, allowed []netip.Prefix
		set := func(list []netip.Prefix) neverban.Set {
			var entries []neverban.Entry
			for _, p := range list {
				entries = append(entries, neverban.Entry{Prefix: p, Source: neverban.SourceGateway})
			}
			return neverban.NewSet(entries)
		}
		told := map[ban.Target]bool{} // the enforcers' bans
		own := map[ban.Target]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			target, err := ban.TargetOfPrefix(drawPrefix(t, "prefix"))
			if err != nil {
				t.Fatal(err)
			}
			c := ban.Claim{Target: target, End: now.Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Basis: ban.BasisStrong}
			switch rapid.SampledFrom([]string{"peer", "peer", "peer", "own", "vital", "foreign", "allow", "withdraw"}).Draw(t, "step") {
			case "peer":
				name := rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "who")
				if err := l.Peers.Apply(ban.Change{Feed: feed(name), Claims: []ban.Claim{c}}); err != nil {
					t.Fatal(err)
				}
			case "withdraw":
				if err := l.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonEnded, target)}); err != nil {
					t.Fatal(err)
				}
			case "own":
				if err := l.BanLocal("sshd", c, Evidence{}); err != nil {
					refused++
				} else {
					own[target] = true
				}
			case "vital":
				vital = append(vital, prefixOf(target))
				l.SetNeverBan(set(vital), set(append(vital[:len(vital):len(vital)], foreign...)))
			case "foreign":
				foreign = append(foreign, prefixOf(target))
				l.SetNeverBan(set(vital), set(append(vital[:len(vital):len(vital)], foreign...)))
			case "allow":
				allowed = append(allowed, prefixOf(target))
				if _, err := l.Exemptions.Allow(target, time.Time{}, ""); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.Bool().Draw(t, "time passes") {
				now = now.Add(time.Minute)
				l.Expire(now)
			}
			for _, change := range l.Enforcement.Take(1 << 20) {
				if delete(told, change.Target); change.Ban {
					told[change.Target] = true
				}
			}
			for banned := range told {
				enforced++
				b := prefixOf(banned)
				for _, list := range [][]netip.Prefix{vital, allowed} {
					for _, v := range list {
						if v.Overlaps(b) {
							t.Fatalf("%v is in force and overlaps %v", b, v)
						}
					}
				}
				for _, v := range foreign {
					if v.Overlaps(b) && !within(own, b) {
						t.Fatalf("%v is in force for peers and overlaps %v", b, v)
					}
				}
			}
		}
	})
	if enforced < 100 || refused < 10 {
		t.Errorf("only %d bans were judged and %d refused: the test does not test", enforced, refused)
	}
}

// within says whether this node banned a prefix itself, or one around it.
func within(own map[ban.Target]bool, p netip.Prefix) bool {
	for t := range own {
		if q := prefixOf(t); q.Bits() <= p.Bits() && q.Overlaps(p) {
			return true
		}
	}
	return false
}

func prefixOf(t ban.Target) netip.Prefix {
	p, _ := t.Prefix()
	return p
}
