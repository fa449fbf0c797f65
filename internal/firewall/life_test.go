package firewall

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
		out = append(out, Ban{p, topic, base.Add(time.Duration(r.IntN(86_400)) * time.Second)})
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

// inStep fails the test unless the kernel has what n wants.
func inStep(t testing.TB, n *NFTables) {
	t.Helper()
	if have, want := kernelBans(t), n.wants(t); have != want {
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

func TestAnUnchangedRestartWritesNothing(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	all := many(10_000, 1)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(all)))
	inStep(t, n)
	// Single changes keep the stamps in step, too.
	mustDo(t, n.Apply(ctx, many(10_100, 1)[10_000:], []Key{all[5].Key(), all[7].Key()}))
	now := append(slices.DeleteFunc(slices.Clone(all), func(b Ban) bool { return b == all[5] || b == all[7] }), many(10_100, 1)[10_000:]...)
	inStep(t, n)
	mustDo(t, n.Close())
	before := generation(t)
	n = newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(now)))
	d, err := n.Check(ctx)
	mustDo(t, err)
	if after := generation(t); after != before || d.Changed {
		t.Errorf("%d transactions, drift %+v", after-before, d)
	}
	inStep(t, n)
}

func TestARestartCuresOnlyWhatChanged(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	all := many(5_000, 1)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(all)))
	mustDo(t, n.Close())

	changed := slices.Clone(all[100:])                   // 100 are no longer wanted
	changed[0].Topic = "all"                             // one blocks more
	changed = append(changed, many(5_010, 1)[5_000:]...) // ten are new
	n = newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(changed)))
	for range 3 {
		now = now.Add(4 * time.Second)
		_, err := n.Check(ctx)
		mustDo(t, err)
	}
	inStep(t, n)
	// And what it wrote is adopted again.
	before := generation(t)
	mustDo(t, n.Close())
	n = newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(changed)))
	if after := generation(t); after != before {
		t.Errorf("%d transactions", after-before)
	}
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

func TestDriftIsFoundAndCured(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	c := simple()
	c.Never = prefixes("192.0.2.0/24")
	mustDo(t, n.Configure(ctx, c))
	all := append(many(3_000, 1), bans("sshd", time.Now().Add(time.Hour), "10.99.0.0/16", "100.0.0.77")...)
	mustDo(t, n.Replace(ctx, slices.Values(all)))
	want := run(t, "nft", "-s", "-t", "list", "ruleset")
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Fatalf("drift of nothing: %+v, %v", d, err)
	}
	for _, c := range []struct{ name, edit, what string }{
		{"the ruleset flushed", "flush ruleset", "the table was gone"},
		{"the table deleted", "delete table inet banmesh", "the table was gone"},
		{"made dormant", "table inet banmesh { flags dormant; }", "dormant"},
		{"a map flushed", "flush map inet banmesh deny4", "gone from deny4"},
		{"prefixes flushed", "flush map inet banmesh deny4c", "deny4c"},
		{"a stranger added", "add element inet banmesh deny4 { 8.8.8.8 timeout 1h : 0xb22bc06f }", "not wanted"},
		{"one ban deleted", "delete element inet banmesh deny4 { 100.0.0.77 }", "1 bans were gone"},
		{"a rule added", "insert rule inet banmesh prerouting accept", "chain prerouting"},
		{"a rule flushed", "flush chain inet banmesh hit_deny4", "chain hit_deny4"},
		{"never-ban emptied", "flush set inet banmesh never4", "set never4"},
		{"never-ban extended", "add element inet banmesh never4 { 0.0.0.0/5 }", "set never4"},
		{"a port added", "add element inet banmesh ports_sshd { tcp . 443 }", "set ports_sshd"},
		{"a chain added", "add chain inet banmesh strange { accept; }", "not wanted"},
		{"a set added", "add set inet banmesh strange { type ipv4_addr; }", "not wanted"},
	} {
		feed(t, c.edit, "nft", "-f", "-")
		d, err := n.Check(ctx)
		if err != nil || !d.Changed || !strings.Contains(strings.Join(d.What, "; "), c.what) {
			t.Errorf("%s: %+v, %v", c.name, d, err)
		}
		if got := run(t, "nft", "-s", "-t", "list", "ruleset"); blocks(got) != blocks(want) {
			t.Errorf("%s: the table is now\n%s", c.name, got)
		}
		inStep(t, n)
		before := generation(t)
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Errorf("%s: still drift: %+v, %v", c.name, d, err)
		}
		if generation(t) != before {
			t.Errorf("%s: a check without drift wrote", c.name)
		}
	}
	// What others do to their own tables is no drift.
	feed(t, "table ip other { chain c { accept; }; }", "nft", "-f", "-")
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("another's table: %+v, %v", d, err)
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

func TestOneTopicOfTwoEndsFirst(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, func(yield func(Ban) bool) {
		for _, p := range []string{"192.0.2.1", "198.51.100.0/24", "2001:db8::/64"} {
			for _, b := range append(bans("all", start.Add(time.Minute), p), bans("sshd", start.Add(time.Hour), p)...) {
				if !yield(b) {
					return
				}
			}
		}
		for _, b := range append(bans("all", start.Add(time.Minute), "203.0.113.16/28"), bans("sshd", start.Add(time.Hour), "203.0.113.0/24")...) {
			if !yield(b) {
				return
			}
		}
	}))
	inStep(t, n)
	if got := n.blocks(netip.MustParseAddr("192.0.2.1"), 80); !got {
		t.Error("not blocked on every port before the minute")
	}
	now = now.Add(61 * time.Second)
	_, err := n.Check(ctx)
	mustDo(t, err)
	inStep(t, n)
	for _, a := range []string{"192.0.2.1", "198.51.100.3", "2001:db8::7", "203.0.113.17"} {
		if n.blocks(netip.MustParseAddr(a), 80) || !n.blocks(netip.MustParseAddr(a), 22) {
			t.Errorf("%s: wrong ports after the minute", a)
		}
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

func TestALostAnswerIsNoLostBan(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	var fail error
	o := Options{}
	o.testing.commit = func([]byte) error { return fail }
	n := newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(many(1_000, 1))))
	fail = unix.ENOBUFS
	if err := n.Apply(ctx, many(1_100, 1)[1_000:], []Key{many(1, 1)[0].Key()}); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("error %v", err)
	}
	fail = nil
	d, err := n.Check(ctx)
	if err != nil || d.Owed != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	inStep(t, n)
}

func TestARealOverflowOfTheSocketIsNoLostBan(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(many(100, 1))))
	// Answers that nobody reads fill the smallest of buffers, so the next
	// acknowledgement is lost.
	mustDo(t, unix.SetsockoptInt(n.k.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	w := writer{seq: &n.k.seq}
	w.netfilter(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC)
	w.end()
	for range 200 {
		mustDo(t, unix.Sendto(n.k.fd, w.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	}
	err := n.Apply(ctx, many(200, 1)[100:], nil)
	if !errors.Is(err, errLost) {
		t.Errorf("the overflow was not noticed: %v", err)
	}
	_, err = n.Check(ctx)
	mustDo(t, err)
	inStep(t, n)
}

func TestTheClockIsSet(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	start := time.Now()
	now, mono := start, time.Duration(0)
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return mono }
	n := newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(bans("sshd", start.Add(2*time.Hour), "192.0.2.1", "192.0.2.0/25"))))
	_, err := n.Check(ctx)
	mustDo(t, err)
	now, mono = now.Add(time.Hour), mono+time.Second
	_, err = n.Check(ctx)
	mustDo(t, err)
	list := run(t, "nft", "list", "map", "inet", "banmesh", mapHost4) + run(t, "nft", "list", "map", "inet", "banmesh", mapWide4)
	if strings.Count(list, "timeout 1h") != 2 || strings.Contains(list, "timeout 2h") {
		t.Errorf("timeouts were not written anew:\n%s", list)
	}
	inStep(t, n)
}

func TestASecondInstanceIsToldSo(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	a, b := newTest(t, Options{}), newTest(t, Options{})
	mustDo(t, a.Configure(ctx, simple()))
	if err := b.Configure(ctx, simple()); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	if err := Remove("banmesh"); !errors.Is(err, ErrBusy) {
		t.Errorf("Remove: %v", err)
	}
	mustDo(t, a.Close())
	mustDo(t, b.Configure(ctx, simple()))
}

func TestAnOwnedTableSurvivesAFlush(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	if c, err := Probe(); err != nil || !c.Persist {
		t.Skipf("this kernel has no persistent tables: %+v, %v", c, err)
	}
	c := simple()
	c.Owner = OwnerAlways
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, c))
	mustDo(t, n.Replace(ctx, slices.Values(many(500, 1))))
	run(t, "nft", "flush", "ruleset")
	if out, err := exec.Command("nft", "delete", "table", "inet", "banmesh").CombinedOutput(); err == nil {
		t.Errorf("another process deleted the owned table: %s", out)
	}
	inStep(t, n)
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	mustDo(t, n.Close())
	// It outlives its owner, and the next process takes it over unread.
	run(t, "nft", "flush", "ruleset")
	n = newTest(t, Options{})
	mustDo(t, n.Configure(ctx, c))
	mustDo(t, n.Replace(ctx, slices.Values(many(500, 1))))
	inStep(t, n)
	if flags, err := n.k.tableFlags(); err != nil || flags&tableOwner == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	// A lost socket takes the ownership with it.
	mustDo(t, n.reopen())
	mustDo(t, n.Apply(ctx, many(600, 1)[500:], nil))
	inStep(t, n)
	if flags, err := n.k.tableFlags(); err != nil || flags&tableOwner == 0 {
		t.Errorf("flags after reopening %x, %v", flags, err)
	}
	mustDo(t, n.Close())
	mustDo(t, Remove("banmesh"))
}

func TestOlderKernelsAreServed(t *testing.T) {
	for _, without := range []features{{mapGate: true}, {destroy: true}, {mapGate: true, destroy: true, persist: true}} {
		t.Run(fmt.Sprintf("%+v", without), func(t *testing.T) {
			inNamespace(t)
			ctx := testContext(t)
			o := Options{}
			o.testing.without = without
			n := newTest(t, o)
			c := simple()
			c.Never = prefixes("10.9.0.9", "2001:db8:9::9")
			mustDo(t, n.Configure(ctx, c))
			mustDo(t, n.Replace(ctx, slices.Values(many(2_500, 1))))
			mustDo(t, n.Apply(ctx, many(2_600, 2)[100:], []Key{many(1, 1)[0].Key(), many(5, 1)[4].Key()}))
			inStep(t, n)
			feed(t, "add element inet banmesh deny4 { 192.0.2.77 timeout 1h : 0xb22bc06f }", "nft", "-f", "-")
			mustDo(t, n.Apply(ctx, bans("all", time.Now().Add(time.Hour), "192.0.2.77"), nil))
			feed(t, "flush ruleset", "nft", "-f", "-")
			d, err := n.Check(ctx)
			if err != nil || !d.Cured {
				t.Errorf("%+v, %v", d, err)
			}
			inStep(t, n)
			mustDo(t, n.Replace(ctx, slices.Values(bans("sshd", time.Now().Add(time.Hour), "10.9.0.2", "10.9.0.9", "2001:db8:9::/64"))))
			inStep(t, n)

			h := attach(t, "veth0", []string{"10.9.0.1/24", "2001:db8:9::1/64"},
				[]string{"10.9.0.2/24", "10.9.0.9/24", "10.9.0.200/24", "2001:db8:9::2/64", "2001:db8:9::9/64", "2001:db8:9:1::7/128"})
			run(t, "ip", "route", "add", "2001:db8:9:1::7/128", "dev", "veth0")
			for _, x := range []struct {
				from, proof, ip string
				port            int
				want            bool
			}{
				{"10.9.0.2", "10.9.0.200", "10.9.0.1", 22, false},
				{"10.9.0.2", "10.9.0.200", "10.9.0.1", 80, true},
				{"10.9.0.9", "10.9.0.200", "10.9.0.1", 22, true},
				{"2001:db8:9::2", "2001:db8:9:1::7", "2001:db8:9::1", 22, false},
				{"2001:db8:9::2", "2001:db8:9:1::7", "2001:db8:9::1", 80, true},
				{"2001:db8:9::9", "2001:db8:9:1::7", "2001:db8:9::1", 22, true},
			} {
				to, proof := listenUDP(t, net.JoinHostPort(x.ip, fmt.Sprint(x.port))), listenUDP(t, net.JoinHostPort(x.ip, "9999"))
				h.proof = x.proof
				if got := h.arrives(x.from, to, proof); got != x.want {
					t.Errorf("%s to %d: arrives %v, want %v", x.from, x.port, got, x.want)
				}
				to.Close()
				proof.Close()
			}
		})
	}
}

// TestHelperLoad is no test: it is the process that the kill test kills.
func TestHelperLoad(t *testing.T) {
	if os.Getenv("FIREWALL_LOAD") == "" {
		t.Skip("only as a child of the kill test")
	}
	o := Options{}
	o.testing.stall = func(written, _ int) {
		if written >= 20_000 {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
	n := NewNFTables(o)
	mustDo(t, n.Configure(context.Background(), simple()))
	mustDo(t, n.Replace(context.Background(), slices.Values(many(50_000, 1))))
}

func TestKilledAmidALoadNothingIsLost(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperLoad$")
	cmd.Env = append(os.Environ(), "FIREWALL_LOAD=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(many(50_000, 1))))
	inStep(t, n)
}

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

func TestSegmentsAreDisjointAndComplete(t *testing.T) {
	// Against the plain definition: every address has the topics of all
	// prefixes around it.
	r := rand.New(rand.NewPCG(1, 2))
	topics := []ban.Topic{"a", "b", "c"}
	for range 300 {
		s := newState()
		type entry struct {
			p netip.Prefix
			t ban.Topic
			u second
		}
		var all []entry
		for range 1 + r.IntN(12) {
			bits := 24 + r.IntN(8)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, byte(r.IntN(256))}), bits).Masked()
			e := entry{p, topics[r.IntN(3)], second(100 + r.IntN(3)*100)}
			all = slices.DeleteFunc(all, func(x entry) bool { return x.p == e.p && x.t == e.t })
			all = append(all, e)
			if _, err := s.add(e.p, e.t, e.u, 50); err != nil {
				t.Fatal(err)
			}
		}
		for _, now := range []second{50, 150, 250} {
			got, _, err := s.segments(true, now)
			mustDo(t, err)
			for i := range got {
				if got[i].to.Less(got[i].from) || i > 0 && !got[i-1].to.Less(got[i].from) {
					t.Fatalf("segments overlap: %v", got)
				}
			}
			for i := range 256 {
				a := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
				var want []ban.Topic
				var until second
				for _, e := range all {
					if e.p.Contains(a) && e.u > now {
						want = append(want, e.t)
						until = max(until, e.u)
					}
				}
				slices.Sort(want)
				want = slices.Compact(want)
				v := s.covering(a, got)[1:]
				var have []ban.Topic
				var ends second
				if len(v) > 0 {
					have, ends = s.classes[v[0].class].topics, v[0].until
				}
				if !slices.Equal(have, want) || ends != until {
					t.Fatalf("%v at %d: %v until %d, want %v until %d\n%v", a, now, have, ends, want, until, all)
				}
			}
		}
	}
}

func FuzzKernelMessagesAreReadWithoutPanic(f *testing.F) {
	var seq uint32
	t := transaction{writer: writer{seq: &seq}}
	t.begin()
	want := build(Config{Scopes: []Scope{{Topic: "a", Ports: []uint16{1}, Protocols: []string{"tcp"}, Remember: time.Hour, MaxConnections: 2}}}, nil, true, true, features{mapGate: true}, false)
	if err := want.encode(&t, "banmesh", nil); err != nil {
		f.Fatal(err)
	}
	for m, rest, ok := nextMessage(t.b); ok; m, rest, ok = nextMessage(rest) {
		f.Add(m.body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(b)))
		whole = append(append(whole, make([]byte, 12)...), b...)
		m, _, ok := nextMessage(whole)
		if !ok || !bytes.Equal(m.body, b) {
			t.Fatal("the message was not cut as it was joined")
		}
		_ = m.asError()
		m.flags = 0x200
		_ = m.asError()
		readSet(m.attrs())
		readChain(m.attrs())
		readElement(m.attrs())
		readSocket(m.body)
		canonicalRead(find(m.attrs(), unix.NFTA_RULE_EXPRESSIONS))
	})
}

func TestPanicEndsEnforcementAndResumeBringsItBack(t *testing.T) {
	for _, owner := range []OwnerMode{OwnerNever, OwnerAlways} {
		inNamespace(t)
		ctx := testContext(t)
		if c, _ := Probe(); owner == OwnerAlways && !c.Persist {
			continue
		}
		n := newTest(t, Options{})
		c := simple()
		c.Owner = owner
		mustDo(t, n.Configure(ctx, c))
		mustDo(t, n.Replace(ctx, slices.Values(many(3_000, 1))))
		s, err := Inspect("banmesh")
		mustDo(t, err)
		if !s.Present || s.Off || s.Owned != (owner == OwnerAlways) || len(s.Counters) != 2 || s.Maps[0].Known && s.Maps[0].Elements == 0 {
			t.Errorf("%+v", s)
		}
		mustDo(t, Panic("banmesh"))
		d, err := n.Check(ctx)
		if err != nil || !d.Off || !d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		if s, err := Inspect("banmesh"); err != nil || s.Present || !s.Off {
			t.Errorf("%+v, %v", s, err)
		}
		// What comes meanwhile is kept for later.
		mustDo(t, n.Apply(ctx, many(3_100, 1)[3_000:], nil))
		mustDo(t, n.Configure(ctx, c))
		if d, err := n.Check(ctx); err != nil || !d.Off || d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		if got := run(t, "nft", "list", "tables"); strings.TrimSpace(got) != "table inet banmesh-off" {
			t.Errorf("tables:\n%s", got)
		}
		// An agent that starts meanwhile obeys, too.
		mustDo(t, n.Close())
		n = newTest(t, Options{})
		mustDo(t, n.Configure(ctx, c))
		mustDo(t, n.Replace(ctx, slices.Values(many(3_100, 1))))
		mustDo(t, n.Apply(ctx, nil, []Key{many(1, 1)[0].Key()}))
		if d, err := n.Check(ctx); err != nil || !d.Off {
			t.Errorf("%+v, %v", d, err)
		}
		if got := run(t, "nft", "list", "tables"); strings.TrimSpace(got) != "table inet banmesh-off" {
			t.Errorf("tables:\n%s", got)
		}
		mustDo(t, Resume("banmesh"))
		if d, err := n.Check(ctx); err != nil || d.Off {
			t.Errorf("%+v, %v", d, err)
		}
		inStep(t, n)
		mustDo(t, n.Close())
		mustDo(t, Remove("banmesh"))
	}
}

func TestKilledAfterSingleChangesLittleIsWrittenAgain(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	all := many(5_100, 1)
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(all[:5_000])))
	for i := range 100 {
		mustDo(t, n.Apply(ctx, all[5_000+i:5_001+i], nil))
	}
	// As the kernel does for a process that is killed.
	n.closed = true
	mustDo(t, n.k.close())
	mustDo(t, unix.Close(n.lock))

	var written int
	o := Options{}
	o.testing.stall = func(done, _ int) { written += done }
	n = newTest(t, o)
	mustDo(t, n.Configure(ctx, simple()))
	mustDo(t, n.Replace(ctx, slices.Values(all)))
	inStep(t, n)
	if written == 0 || written > 2_500 {
		t.Errorf("%d bans were written again", written)
	}
}

func TestATableThatIsNotOursIsMadeOurs(t *testing.T) {
	for _, other := range []string{
		"table inet banmesh { set mine { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type filter hook input priority 0; drop; }; }",
		"table inet banmesh { map deny4 { type ipv4_addr : verdict; }; chain prerouting { type filter hook input priority 0; }; }",
		"table inet banmesh { map stamps { type mark : mark; elements = { 1 : 2 }; }; }",
	} {
		inNamespace(t)
		ctx := testContext(t)
		feed(t, other, "nft", "-f", "-")
		n := newTest(t, Options{})
		mustDo(t, n.Configure(ctx, simple()))
		mustDo(t, n.Replace(ctx, slices.Values(many(500, 1))))
		inStep(t, n)
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		mustDo(t, n.Close())
		mustDo(t, Remove("banmesh"))
	}
}

func TestPrefixesThatKeepComingAreWrittenTogether(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	c := simple()
	mustDo(t, n.Configure(ctx, c))
	wide := func(i int) Ban {
		return Ban{netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 11), byte(i >> 3), byte(i << 5)}), 28), "sshd", start.Add(time.Hour)}
	}
	mustDo(t, n.Replace(ctx, func(yield func(Ban) bool) {
		for i := range 30_000 {
			if !yield(wide(i)) {
				return
			}
		}
	}))
	inStep(t, n)
	for i := range 50 {
		mustDo(t, n.Apply(ctx, []Ban{wide(30_000 + i)}, []Key{wide(i).Key()}))
	}
	now = now.Add(wideRestMost)
	d, err := n.Check(ctx)
	if err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	inStep(t, n)
}
