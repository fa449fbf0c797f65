package nft

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

// TestAnySequenceOfChangesEndsInTheWantedState plays random changes, edits by
// somebody else and restarts, and compares the kernel with the plain definition
// of the wanted state: every ban that was added and not removed.
func TestAnySequenceOfChangesEndsInTheWantedState(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	pool := testnet.Prefixes("192.0.2.1", "192.0.2.2", "192.0.2.0/24", "192.0.2.0/28", "192.0.2.16/28", "192.0.0.0/16", "255.255.255.0/24", "255.255.255.255",
		"2001:db8::1", "2001:db8::/64", "2001:db8::/48", "2001:db8::/96", "2001:db8:0:1::/64", "0.0.0.0/1")
	topics := []ban.Topic{"sshd", "all", "third"}
	c := simple()
	c.Scopes = append(c.Scopes, firewall.Scope{Topic: "third", Observe: true})
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 7))
		start := time.Now()
		wanted := make(map[firewall.Key]firewall.Ban)
		o := Options{}
		if seed%2 == 1 {
			o.testing.without = features{mapGate: true, destroy: true}
		}
		n := newTest(t, o)
		testnet.Must(t, n.Configure(ctx, c))
		testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
		random := func() firewall.Ban {
			return firewall.Ban{Prefix: pool[r.IntN(len(pool))], Topic: topics[r.IntN(3)], Until: start.Add(time.Duration(1+r.IntN(50)) * time.Hour)}
		}
		for step := range 60 {
			switch r.IntN(12) {
			case 0: // everything anew
				clear(wanted)
				for range r.IntN(12) {
					b := random()
					wanted[b.Key()] = b
				}
				testnet.Must(t, n.Replace(ctx, func(yield func(firewall.Ban) bool) {
					for _, b := range wanted {
						if !yield(b) {
							return
						}
					}
				}))
			case 1: // a restart
				testnet.Must(t, n.Close())
				n = newTest(t, o)
				testnet.Must(t, n.Configure(ctx, c))
				testnet.Must(t, n.Replace(ctx, func(yield func(firewall.Ban) bool) {
					for _, b := range wanted {
						if !yield(b) {
							return
						}
					}
				}))
			case 2: // somebody else
				edit := []string{"flush ruleset", "flush map inet banmesh deny4", "flush map inet banmesh deny6c", "flush chain inet banmesh prerouting"}[r.IntN(4)]
				testnet.Feed(t, edit, "nft", "-f", "-")
				_, err := n.Check(ctx)
				testnet.Must(t, err)
			default:
				var add []firewall.Ban
				var remove []firewall.Key
				for range 1 + r.IntN(4) {
					if b := random(); r.IntN(3) == 0 {
						remove = append(remove, b.Key())
						delete(wanted, b.Key())
					} else if !slices.Contains(remove, b.Key()) {
						add = append(add, b)
						wanted[b.Key()] = b
					}
				}
				// A removal and an addition of one key in one call: the addition
				// counts.
				remove = slices.DeleteFunc(remove, func(k firewall.Key) bool { _, ok := wanted[k]; return ok })
				add = slices.DeleteFunc(add, func(b firewall.Ban) bool { return wanted[b.Key()] != b })
				testnet.Must(t, n.Apply(ctx, add, remove))
			}
			// The rest that many prefixes take is short here, and over by then.
			n.wide[0].rest, n.wide[1].rest = time.Time{}, time.Time{}
			if _, err := n.Check(ctx); err != nil {
				t.Fatal(err)
			}
			inStep(t, n)
			for _, p := range pool {
				a := p.Addr()
				for _, port := range []uint16{22, 80} {
					want := false
					for k := range wanted {
						want = want || k.Prefix.Contains(a) && (k.Topic == "all" || k.Topic == "sshd" && port == 22)
					}
					if got := n.blocks(a, port); got != want {
						t.Fatalf("seed %d step %d: %s port %d is blocked: %v, want %v\n%v", seed, step, a, port, got, want, wanted)
					}
				}
			}
		}
		testnet.Must(t, n.Close())
		testnet.Must(t, Remove("banmesh"))
	}
}
