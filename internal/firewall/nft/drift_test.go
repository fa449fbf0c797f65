package nft

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestDriftIsFoundAndCured(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	c := simple()
	c.Never = testnet.Prefixes("192.0.2.0/24")
	testnet.Must(t, n.Configure(ctx, c))
	all := append(many(3_000, 1), bans("sshd", time.Now().Add(time.Hour), "10.99.0.0/16", "100.0.0.77")...)
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	want := testnet.Run(t, "nft", "-s", "-t", "list", "ruleset")
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
		testnet.Feed(t, c.edit, "nft", "-f", "-")
		d, err := n.Check(ctx)
		if err != nil || !d.Changed || !strings.Contains(strings.Join(d.What, "; "), c.what) {
			t.Errorf("%s: %+v, %v", c.name, d, err)
		}
		if got := testnet.Run(t, "nft", "-s", "-t", "list", "ruleset"); blocks(got) != blocks(want) {
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
	// Changes that others make to their own tables are no drift.
	testnet.Feed(t, "table ip other { chain c { accept; }; }", "nft", "-f", "-")
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("another's table: %+v, %v", d, err)
	}
}

func TestALostAnswerIsNoLostBan(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	var fail error
	o := Options{}
	o.testing.commit = func([]byte) error { return fail }
	n := newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(1_000, 1))))
	fail = unix.ENOBUFS
	if err := n.Apply(ctx, many(1_100, 1)[1_000:], []firewall.Key{many(1, 1)[0].Key()}); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("error %v", err)
	}
	fail = nil
	d, err := n.Check(ctx)
	if err != nil || d.Pending != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	inStep(t, n)
}

func TestARealOverflowOfTheSocketIsNoLostBan(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(100, 1))))
	// Answers that nobody reads fill the smallest of buffers, so the next
	// acknowledgement is lost.
	testnet.Must(t, unix.SetsockoptInt(n.k.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	w := writer{seq: &n.k.seq}
	w.netfilter(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC)
	w.end()
	for range 200 {
		testnet.Must(t, unix.Sendto(n.k.fd, w.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	}
	err := n.Apply(ctx, many(200, 1)[100:], nil)
	if !errors.Is(err, errLost) {
		t.Errorf("the overflow was not noticed: %v", err)
	}
	_, err = n.Check(ctx)
	testnet.Must(t, err)
	inStep(t, n)
}

func TestTheClockIsSet(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	start := time.Now()
	now, mono := start, time.Duration(0)
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return mono }
	n := newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(bans("sshd", start.Add(2*time.Hour), "192.0.2.1", "192.0.2.0/25"))))
	_, err := n.Check(ctx)
	testnet.Must(t, err)
	now, mono = now.Add(time.Hour), mono+time.Second
	_, err = n.Check(ctx)
	testnet.Must(t, err)
	list := testnet.Run(t, "nft", "list", "map", "inet", "banmesh", mapHost4) + testnet.Run(t, "nft", "list", "map", "inet", "banmesh", mapWide4)
	if strings.Count(list, "timeout 1h") != 2 || strings.Contains(list, "timeout 2h") {
		t.Errorf("timeouts were not written anew:\n%s", list)
	}
	inStep(t, n)
}

func TestPanicEndsEnforcementAndResumeBringsItBack(t *testing.T) {
	for _, owner := range []firewall.OwnerMode{firewall.OwnerNever, firewall.OwnerAlways} {
		testnet.Enter(t)
		ctx := testnet.Context(t)
		if c, _ := Probe(); owner == firewall.OwnerAlways && !persists(c) {
			continue
		}
		n := newTest(t, Options{})
		c := simple()
		c.Owner = owner
		testnet.Must(t, n.Configure(ctx, c))
		testnet.Must(t, n.Replace(ctx, slices.Values(many(3_000, 1))))
		s, err := Inspect("banmesh")
		testnet.Must(t, err)
		if !s.Present || s.Off || s.Owned != (owner == firewall.OwnerAlways) || len(s.Counters) != 2 || s.Maps[0].Known && s.Maps[0].Elements == 0 {
			t.Errorf("%+v", s)
		}
		testnet.Must(t, Panic("banmesh"))
		d, err := n.Check(ctx)
		if err != nil || !d.Off || !d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		if s, err := Inspect("banmesh"); err != nil || s.Present || !s.Off {
			t.Errorf("%+v, %v", s, err)
		}
		// Bans that come meanwhile are kept for later.
		testnet.Must(t, n.Apply(ctx, many(3_100, 1)[3_000:], nil))
		testnet.Must(t, n.Configure(ctx, c))
		if d, err := n.Check(ctx); err != nil || !d.Off || d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		if got := testnet.Run(t, "nft", "list", "tables"); strings.TrimSpace(got) != "table inet banmesh-off" {
			t.Errorf("tables:\n%s", got)
		}
		// An agent that starts meanwhile obeys, too.
		testnet.Must(t, n.Close())
		n = newTest(t, Options{})
		testnet.Must(t, n.Configure(ctx, c))
		testnet.Must(t, n.Replace(ctx, slices.Values(many(3_100, 1))))
		testnet.Must(t, n.Apply(ctx, nil, []firewall.Key{many(1, 1)[0].Key()}))
		if d, err := n.Check(ctx); err != nil || !d.Off {
			t.Errorf("%+v, %v", d, err)
		}
		if got := testnet.Run(t, "nft", "list", "tables"); strings.TrimSpace(got) != "table inet banmesh-off" {
			t.Errorf("tables:\n%s", got)
		}
		testnet.Must(t, Resume("banmesh"))
		if d, err := n.Check(ctx); err != nil || d.Off {
			t.Errorf("%+v, %v", d, err)
		}
		inStep(t, n)
		testnet.Must(t, n.Close())
		testnet.Must(t, Remove("banmesh"))
	}
}

func TestATableThatIsNotOursIsMadeOurs(t *testing.T) {
	for _, other := range []string{
		"table inet banmesh { set mine { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type filter hook input priority 0; drop; }; }",
		"table inet banmesh { map deny4 { type ipv4_addr : verdict; }; chain prerouting { type filter hook input priority 0; }; }",
		"table inet banmesh { map checksums { type mark : mark; elements = { 1 : 2 }; }; }",
	} {
		testnet.Enter(t)
		ctx := testnet.Context(t)
		testnet.Feed(t, other, "nft", "-f", "-")
		n := newTest(t, Options{})
		testnet.Must(t, n.Configure(ctx, simple()))
		testnet.Must(t, n.Replace(ctx, slices.Values(many(500, 1))))
		inStep(t, n)
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		testnet.Must(t, n.Close())
		testnet.Must(t, Remove("banmesh"))
	}
}
