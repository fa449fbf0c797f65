package firewall

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
)

// simple is a configuration with a port scope and an all-port one.
func simple() Config {
	return Config{Owner: OwnerNever, Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "all"}}}
}

// many gives n bans of different kinds that end in an hour or more; the same to
// every process that asks at about the same time.
func many(n int, seed uint64) []Ban {
	r := rand.New(rand.NewPCG(seed, 1))
	base := time.Now().Truncate(6 * time.Hour).Add(7 * time.Hour)
	out := make([]Ban, 0, n)
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
		out = append(out, Ban{Prefix: p, Topic: topic, Until: base.Add(time.Duration(r.IntN(86_400)) * time.Second)})
	}
	return out
}

// kernelBans reads back what the maps hold: key and class, and the ranges.
func kernelBans(t testing.TB) string {
	t.Helper()
	k, err := openKernel("banmesh")
	mustDo(t, err)
	defer k.close()
	var b strings.Builder
	for _, name := range []string{mapHost4, mapHost6, mapNet6, mapWide4, mapWide6} {
		elements, err := k.elements(name)
		mustDo(t, err)
		slices.SortFunc(elements, compareElements)
		for _, e := range elements {
			fmt.Fprintf(&b, "%s %x %v %x\n", name, e.key, e.end, e.verdict)
		}
	}
	return b.String()
}

// wants gives the same of what n wants.
func (n *NFTables) wants(t testing.TB) string {
	var b strings.Builder
	for k := kindHost4; k <= kindNet6; k++ {
		var lines []string
		n.state.eachOf(k, func(p netip.Prefix, v slot) bool {
			lines = append(lines, fmt.Sprintf("%s %x false %x\n", mapNames[k], appendKey(nil, p), markBytes(n.state.classes[v.class].id)))
			return true
		})
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	for i, name := range wideNames {
		want, _, err := n.state.segments(i == 0, secondOf(n.now()))
		mustDo(t, err)
		var elements []element
		for _, s := range want {
			elements = append(elements, element{key: string(s.from.AsSlice()), verdict: markBytes(n.state.classes[s.slot.class].id)})
			if end := s.to.Next(); end.IsValid() {
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

// inStep fails the test unless the kernel has what n wants. While the kernel
// resizes a set behind our back it may list one element twice and leave another
// out, so what differs is looked at again.
func inStep(t testing.TB, n *NFTables) {
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
	mustDo(t, err)
	defer k.close()
	g, err := k.generation()
	mustDo(t, err)
	return g
}

func TestReplaceWritesTheDifference(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(many(3_000, 1))))
	mustDo(t, n.Replace(ctx, slices.Values(many(3_100, 2)[50:])))
	inStep(t, n)
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	inStep(t, n)
	if got := kernelBans(t); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestBansEndOnTimeWithTheAgentDead(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	until := time.Now().Add(2 * time.Second)
	mustDo(t, n.Replace(ctx, slices.Values(append(bans("sshd", until, "192.0.2.1", "192.0.2.0/25", "2001:db8::/64", "2001:db8::1"),
		bans("sshd", time.Time{}, "192.0.2.9")...))))
	mustDo(t, n.Close())
	k, err := openKernel("banmesh")
	mustDo(t, err)
	defer k.close()
	gone := func(name string, p string) bool {
		_, err := k.get(name, appendKey(nil, pfx(p)))
		return isGone(err)
	}
	if gone(mapHost4, "192.0.2.1") || gone(mapHost6, "2001:db8::1") || gone(mapNet6, "2001:db8::/64") || gone(mapWide4, "192.0.2.0/25") {
		t.Fatal("Close took the bans away")
	}
	eventually(t, func() bool {
		return gone(mapHost4, "192.0.2.1") && gone(mapHost6, "2001:db8::1") && gone(mapNet6, "2001:db8::/64") && gone(mapWide4, "192.0.2.0/25")
	})
	if early := time.Until(until); early > 0 {
		t.Errorf("they ended %v early", early)
	}
	if gone(mapHost4, "192.0.2.9") {
		t.Error("the ban without end ended")
	}
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestTheCapRefusesClearlyAndLosesNothing(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	c := simple()
	c.Cap = 100
	mustDo(t, n.Configure(ctx, c))
	all := many(150, 1)
	err := n.Replace(ctx, slices.Values(all))
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "50 bans refused") {
		t.Errorf("error %v", err)
	}
	inStep(t, n)
	// What is banned already may still change, and room that is made is used.
	renewed := all[0]
	renewed.Until = renewed.Until.Add(time.Hour)
	mustDo(t, n.Apply(ctx, []Ban{renewed}, nil))
	if err := n.Apply(ctx, all[120:121], nil); !errors.Is(err, ErrFull) {
		t.Errorf("error %v", err)
	}
	mustDo(t, n.Apply(ctx, all[120:121], []Key{all[1].Key()}))
	inStep(t, n)
}

func TestOneBadBanDoesNotLoseTheOthers(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	good := many(50, 1)
	mixed := append(slices.Clone(good), Ban{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Topic: "sshd"},
		Ban{Prefix: pfx("192.0.2.1"), Topic: "nobody"}, Ban{Topic: "sshd"})
	err := n.Apply(ctx, mixed, []Key{{Topic: "sshd"}})
	if !errors.Is(err, ErrPrefix) || !errors.Is(err, ErrNoScope) {
		t.Errorf("error %v", err)
	}
	inStep(t, n)
	// The kernel has one already, of another class, that nobody told us of.
	feed(t, "add element inet banmesh deny4 { 192.0.2.77 timeout 1h : 0xb22bc06f }", "nft", "-f", "-")
	mustDo(t, n.Apply(ctx, append(bans("all", time.Now().Add(time.Hour), "192.0.2.77"), many(90, 1)[50:]...), nil))
	inStep(t, n)
}

// TestHelperLoad is no test: it is the process that the kill test kills.
func TestEveryElementOfABigLoadIsThere(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	all := many(200_000, 1)
	mustDo(t, n.Replace(ctx, slices.Values(all)))
	total, _ := n.state.counts(0)
	for k := kindHost4; k <= kindNet6; k++ {
		count, known, err := n.k.count(mapNames[k])
		mustDo(t, err)
		if known && int(count) != total[k] {
			t.Errorf("%s holds %d, want %d", mapNames[k], count, total[k])
		}
	}
}
