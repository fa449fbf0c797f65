package nft

import (
	"net/netip"
	"testing"
	"time"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestOneTopicOfTwoEndsFirst(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, func(yield func(firewall.Ban) bool) {
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
	testnet.Must(t, err)
	inStep(t, n)
	for _, a := range []string{"192.0.2.1", "198.51.100.3", "2001:db8::7", "203.0.113.17"} {
		if n.blocks(netip.MustParseAddr(a), 80) || !n.blocks(netip.MustParseAddr(a), 22) {
			t.Errorf("%s: wrong ports after the minute", a)
		}
	}
}

func TestPrefixesThatKeepComingAreWrittenTogether(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	c := simple()
	testnet.Must(t, n.Configure(ctx, c))
	wide := func(i int) firewall.Ban {
		return firewall.Ban{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 11), byte(i >> 3), byte(i << 5)}), 28), Topic: "sshd", Until: start.Add(time.Hour)}
	}
	testnet.Must(t, n.Replace(ctx, func(yield func(firewall.Ban) bool) {
		for i := range 30_000 {
			if !yield(wide(i)) {
				return
			}
		}
	}))
	inStep(t, n)
	for i := range 50 {
		testnet.Must(t, n.Apply(ctx, []firewall.Ban{wide(30_000 + i)}, []firewall.Key{wide(i).Key()}))
	}
	now = now.Add(wideRestMost)
	d, err := n.Check(ctx)
	if err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	inStep(t, n)
}
