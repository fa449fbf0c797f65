package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"

	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

func TestTheFakeDecidesAboutPackets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := NewFake(func() time.Time { return now })
	ctx := testnet.Context(t)
	testnet.Must(t, f.Configure(ctx, Config{Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22}, Remember: time.Minute}, {Topic: "watched", Observe: true}}, Never: testnet.Prefixes("192.0.2.9")}))
	testnet.Must(t, f.Replace(ctx, slices.Values(slices.Concat(bans("sshd", now.Add(time.Minute), "192.0.2.0/24", "2001:db8::/64"), bans("watched", time.Time{}, "192.0.2.1")))))
	for _, c := range []struct {
		addr string
		port uint16
		want bool
	}{{"192.0.2.1", 22, true}, {"192.0.2.1", 80, false}, {"192.0.2.9", 22, false}, {"2001:db8::7", 22, true}, {"192.0.3.1", 22, false}} {
		if got := f.Packet(netip.MustParseAddr(c.addr), "tcp", c.port, 60); got != c.want {
			t.Errorf("%s:%d dropped %v", c.addr, c.port, got)
		}
	}
	counters, err := f.Counters(ctx)
	testnet.Must(t, err)
	if counters["sshd"] != (Counter{2, 120}) || counters["watched"] != (Counter{2, 120}) {
		t.Errorf("%+v", counters)
	}
	want := []Ban{{Prefix: testnet.Prefix("192.0.2.0/24"), Topic: "sshd", Until: now.Add(time.Minute)}, {Prefix: testnet.Prefix("192.0.2.1"), Topic: "watched"}, {Prefix: testnet.Prefix("2001:db8::/64"), Topic: "sshd", Until: now.Add(time.Minute)}}
	if got := f.Bans(); !slices.EqualFunc(got, want, func(a, b Ban) bool { return a.Key() == b.Key() && a.Until.Equal(b.Until) }) {
		t.Errorf("%+v", got)
	}
	f.Peer("sshd", netip.MustParseAddrPort("192.0.2.1:4711"), 60)
	if got, err := f.Connection(ctx, "sshd", netip.MustParseAddrPort("192.0.2.1:4711")); err != nil || !got.Seen || got.Bytes != 60 {
		t.Errorf("%+v, %v", got, err)
	}
	now = now.Add(time.Minute)
	if got, err := f.Address(ctx, "sshd", netip.MustParseAddr("192.0.2.1")); err != nil || got.Seen {
		t.Errorf("still remembered: %+v, %v", got, err)
	}
	if f.Packet(netip.MustParseAddr("192.0.2.1"), "tcp", 22, 60) {
		t.Error("dropped past its end")
	}
	f.Fail(errors.New("kernel says no"))
	if err := f.Apply(ctx, bans("sshd", now.Add(time.Hour), "192.0.2.77"), nil); err == nil {
		t.Error("no failure")
	}
	f.Fail(nil)
	if d, err := f.Check(ctx); err != nil || d.Bans != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestManyCombinationsOfOperatorsRefuseNoBan(t *testing.T) {
	f := NewFake(nil)
	ctx := testnet.Context(t)
	testnet.Must(t, f.Configure(ctx, Config{Scopes: []Scope{{Topic: "watched", Observe: true}}, Cap: 10_000}))
	testnet.Must(t, f.Replace(ctx, func(yield func(Ban) bool) {
		for i := range 5_000 {
			if !yield(Ban{Prefix: testnet.Prefix(fmt.Sprintf("10.0.%d.%d", i>>8, i&255)), Topic: "watched", By: fmt.Sprintf("o%d,p%d", i%97, i/97)}) {
				return
			}
		}
	}))
	if d, err := f.Check(ctx); err != nil || d.Bans != 5_000 {
		t.Errorf("%+v, %v", d, err)
	}
	if got := len(f.state.Classes); got > desired.MaxLabelled+1 {
		t.Errorf("%d classes", got)
	}
}

func bans(topic ban.Topic, until time.Time, prefixes ...string) (out []Ban) {
	for _, p := range testnet.Prefixes(prefixes...) {
		out = append(out, Ban{Prefix: p, Topic: topic, Until: until})
	}
	return out
}

func TestManyRememberedTopicsShareTheRoom(t *testing.T) {
	for n, want := range map[int]uint32{0: MaxTraces, 1: MaxTraces, 4: MaxTraces, 5: 52_428, 8: 32_767, 16: 16_383, 64: 4_096, 256: 4_096} {
		var c Config
		for range n {
			c.Scopes = append(c.Scopes, Scope{Remember: time.Hour})
		}
		c.Scopes = append(c.Scopes, Scope{}, Scope{Remember: time.Hour, Protocols: []string{"udp"}})
		if got := c.Traces(); got != want {
			t.Errorf("%d topics have room for %d each, want %d", n, got, want)
		}
	}
}
