package nft

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

// simple is a configuration with a port scope and an all-port one.
func simple() firewall.Config {
	return firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "all"}}}
}

// many gives n bans of different kinds that end in an hour or more; the same to
// every process that asks at about the same time.
func many(n int, seed uint64) []firewall.Ban {
	r := rand.New(rand.NewPCG(seed, 1))
	base := time.Now().Truncate(6 * time.Hour).Add(7 * time.Hour)
	out := make([]firewall.Ban, 0, n)
	for i := range n {
		var p netip.Prefix
		switch {
		case i%20 == 0:
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 16), byte(i >> 8), byte(i), 15: 1}), 128)
		case i%20 == 1:
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb9, byte(i >> 16), byte(i >> 8), byte(i)}), 64)
		case i%200 == 2:
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), 0}), 24)
		default:
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		}
		topic := ban.Topic("sshd")
		if i%3 == 0 {
			topic = "all"
		}
		out = append(out, firewall.Ban{Prefix: p, Topic: topic, Until: base.Add(time.Duration(r.IntN(86_400)) * time.Second)})
	}
	return out
}

// kernelBans reads back the maps: key and class, and the ranges.
func kernelBans(t testing.TB) string {
	t.Helper()
	k, err := openKernel("banmesh")
	testnet.Must(t, err)
	defer k.close()
	var b strings.Builder
	for _, name := range []string{mapHost4, mapHost6, mapNet6, mapWide4, mapWide6} {
		elements, err := k.elements(name)
		testnet.Must(t, err)
		slices.SortFunc(elements, compareElements)
		for _, e := range elements {
			fmt.Fprintf(&b, "%s %x %v %x\n", name, e.key, e.end, e.verdict)
		}
	}
	return b.String()
}

// wants gives the same of the state that n wants.
func (n *Firewall) wants(t testing.TB) string {
	var b strings.Builder
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		var lines []string
		n.state.EachOf(k, func(p netip.Prefix, v desired.Slot) bool {
			lines = append(lines, fmt.Sprintf("%s %x false %x\n", mapNames[k], appendKey(nil, p), markBytes(n.state.Classes[v.Class].ID)))
			return true
		})
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	for i, name := range wideNames {
		want, _, err := n.state.Segments(i == 0, desired.SecondOf(n.now()))
		testnet.Must(t, err)
		var elements []element
		for _, s := range want {
			elements = append(elements, element{key: string(s.From.AsSlice()), verdict: markBytes(n.state.Classes[s.Slot.Class].ID)})
			if end := s.To.Next(); end.IsValid() {
				elements = append(elements, element{key: string(end.AsSlice()), end: true})
			}
		}
		slices.SortFunc(elements, compareElements)
		for _, e := range elements {
			fmt.Fprintf(&b, "%s %x %v %x\n", name, e.key, e.end, e.verdict)
		}
	}
	return b.String()
}

// inStep fails the test unless the kernel has the bans that n wants. While the kernel
// resizes a set behind our back it may list one element twice and leave another
// out, so a difference is looked at again.
func inStep(t testing.TB, n *Firewall) {
	t.Helper()
	have, want := kernelBans(t), n.wants(t)
	for deadline := time.Now().Add(5 * time.Second); have != want && time.Now().Before(deadline); {
		have, want = kernelBans(t), n.wants(t)
	}
	if have != want {
		t.Fatalf("the kernel has %d lines, want %d; first difference:\n%s", strings.Count(have, "\n"), strings.Count(want, "\n"), firstDifference(have, want))
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "have " + x[i] + "\nwant " + y[i]
		}
	}
	return "one is longer"
}

func generation(t testing.TB) uint32 {
	t.Helper()
	k, err := openKernel("banmesh")
	testnet.Must(t, err)
	defer k.close()
	g, err := k.generation()
	testnet.Must(t, err)
	return g
}

func TestReplaceWritesTheDifference(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(3_000, 1))))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(3_100, 2)[50:])))
	inStep(t, n)
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	inStep(t, n)
	if got := kernelBans(t); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestBansEndOnTimeWithTheAgentDead(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	until := time.Now().Add(2 * time.Second)
	testnet.Must(t, n.Replace(ctx, slices.Values(append(bans("sshd", until, "192.0.2.1", "192.0.2.0/25", "2001:db8::/64", "2001:db8::1"),
		bans("sshd", time.Time{}, "192.0.2.9")...))))
	testnet.Must(t, n.Close())
	k, err := openKernel("banmesh")
	testnet.Must(t, err)
	defer k.close()
	gone := func(name string, p string) bool {
		_, err := k.get(name, appendKey(nil, testnet.Prefix(p)))
		return isGone(err)
	}
	if gone(mapHost4, "192.0.2.1") || gone(mapHost6, "2001:db8::1") || gone(mapNet6, "2001:db8::/64") || gone(mapWide4, "192.0.2.0/25") {
		t.Fatal("Close took the bans away")
	}
	testnet.Eventually(t, func() bool {
		return gone(mapHost4, "192.0.2.1") && gone(mapHost6, "2001:db8::1") && gone(mapNet6, "2001:db8::/64") && gone(mapWide4, "192.0.2.0/25")
	})
	if early := time.Until(until); early > 0 {
		t.Errorf("they ended %v early", early)
	}
	if gone(mapHost4, "192.0.2.9") {
		t.Error("the ban without end ended")
	}
}

func TestTheCapRefusesClearlyAndLosesNothing(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	c := simple()
	c.Cap = 100
	testnet.Must(t, n.Configure(ctx, c))
	all := many(150, 1)
	err := n.Replace(ctx, slices.Values(all))
	if !errors.Is(err, firewall.ErrFull) || !strings.Contains(err.Error(), "50 bans refused") {
		t.Errorf("error %v", err)
	}
	inStep(t, n)
	// A ban in force may still change, and room that is made is used.
	renewed := all[0]
	renewed.Until = renewed.Until.Add(time.Hour)
	testnet.Must(t, n.Apply(ctx, []firewall.Ban{renewed}, nil))
	if err := n.Apply(ctx, all[120:121], nil); !errors.Is(err, firewall.ErrFull) {
		t.Errorf("error %v", err)
	}
	testnet.Must(t, n.Apply(ctx, all[120:121], []firewall.Key{all[1].Key()}))
	inStep(t, n)
}

func TestOneBadBanDoesNotLoseTheOthers(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	good := many(50, 1)
	mixed := append(slices.Clone(good), firewall.Ban{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Topic: "sshd"},
		firewall.Ban{Prefix: testnet.Prefix("192.0.2.1"), Topic: "nobody"}, firewall.Ban{Topic: "sshd"})
	err := n.Apply(ctx, mixed, []firewall.Key{{Topic: "sshd"}})
	if !errors.Is(err, firewall.ErrPrefix) || !errors.Is(err, firewall.ErrNoScope) {
		t.Errorf("error %v", err)
	}
	inStep(t, n)
	// The kernel has one already, of another class, that nobody told us of.
	testnet.Feed(t, "add element inet banmesh deny4 { 192.0.2.77 timeout 1h : 0xb22bc06f }", "nft", "-f", "-")
	testnet.Must(t, n.Apply(ctx, append(bans("all", time.Now().Add(time.Hour), "192.0.2.77"), many(90, 1)[50:]...), nil))
	inStep(t, n)
}

// TestHelperLoad is no test: it is the process that the kill test kills.
func TestEveryElementOfABigLoadIsThere(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	all := many(200_000, 1)
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	total, _ := n.state.Counts(0)
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		count, known, err := n.k.count(mapNames[k])
		testnet.Must(t, err)
		if known && int(count) != total[k] {
			t.Errorf("%s holds %d, want %d", mapNames[k], count, total[k])
		}
	}
}

func newTest(t testing.TB, o Options) *Firewall {
	t.Helper()
	n := New(o)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func bans(topic ban.Topic, until time.Time, prefixes ...string) []firewall.Ban {
	var out []firewall.Ban
	for _, s := range prefixes {
		out = append(out, firewall.Ban{Prefix: testnet.Prefix(s), Topic: topic, Until: until})
	}
	return out
}

// persists says whether this kernel has tables that outlive their owner.
func persists(c firewall.Capability) bool {
	return slices.ContainsFunc(c.Features, func(f firewall.Feature) bool { return f.Have && strings.Contains(f.What, "flush ruleset") })
}
