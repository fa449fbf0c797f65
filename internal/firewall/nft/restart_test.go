package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

func TestAnUnchangedRestartWritesNothing(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	all := many(10_000, 1)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	inStep(t, n)
	// Single changes keep the checksums in step, too.
	testnet.Must(t, n.Apply(ctx, many(10_100, 1)[10_000:], []firewall.Key{all[5].Key(), all[7].Key()}))
	now := append(slices.DeleteFunc(slices.Clone(all), func(b firewall.Ban) bool { return b == all[5] || b == all[7] }), many(10_100, 1)[10_000:]...)
	inStep(t, n)
	testnet.Must(t, n.Close())
	before := generation(t)
	n = newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(now)))
	d, err := n.Check(ctx)
	testnet.Must(t, err)
	if after := generation(t); after != before || d.Changed {
		t.Errorf("%d transactions, drift %+v", after-before, d)
	}
	inStep(t, n)
}

func TestARestartCuresOnlyWhatChanged(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	all := many(5_000, 1)
	start := time.Now()
	now := start
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return now.Sub(start) }
	n := newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	testnet.Must(t, n.Close())

	changed := slices.Clone(all[100:])                   // 100 are no longer wanted
	changed[0].Topic = "all"                             // one blocks more
	changed = append(changed, many(5_010, 1)[5_000:]...) // ten are new
	n = newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(changed)))
	for range 3 {
		now = now.Add(4 * time.Second)
		_, err := n.Check(ctx)
		testnet.Must(t, err)
	}
	inStep(t, n)
	// And its writes are adopted again.
	before := generation(t)
	testnet.Must(t, n.Close())
	n = newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(changed)))
	if after := generation(t); after != before {
		t.Errorf("%d transactions", after-before)
	}
}

func TestASecondInstanceIsToldSo(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	a, b := newTest(t, Options{}), newTest(t, Options{})
	testnet.Must(t, a.Configure(ctx, simple()))
	if err := b.Configure(ctx, simple()); !errors.Is(err, firewall.ErrBusy) {
		t.Errorf("error %v", err)
	}
	if err := Remove("banmesh"); !errors.Is(err, firewall.ErrBusy) {
		t.Errorf("Remove: %v", err)
	}
	testnet.Must(t, a.Close())
	testnet.Must(t, b.Configure(ctx, simple()))
}

func TestAnOwnedTableSurvivesAFlush(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	if c, err := Probe(); err != nil || !persists(c) {
		t.Skipf("this kernel has no persistent tables: %+v, %v", c, err)
	}
	c := simple()
	c.Owner = firewall.OwnerAlways
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, c))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(500, 1))))
	testnet.Run(t, "nft", "flush", "ruleset")
	if out, err := exec.Command("nft", "delete", "table", "inet", "banmesh").CombinedOutput(); err == nil {
		t.Errorf("another process deleted the owned table: %s", out)
	}
	inStep(t, n)
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	testnet.Must(t, n.Close())
	// It outlives its owner, and the next process takes it over unread.
	testnet.Run(t, "nft", "flush", "ruleset")
	n = newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, c))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(500, 1))))
	inStep(t, n)
	if flags, err := n.k.tableFlags(); err != nil || flags&tableOwner == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	// A lost socket takes the ownership with it.
	testnet.Must(t, n.reopen())
	testnet.Must(t, n.Apply(ctx, many(600, 1)[500:], nil))
	inStep(t, n)
	if flags, err := n.k.tableFlags(); err != nil || flags&tableOwner == 0 {
		t.Errorf("flags after reopening %x, %v", flags, err)
	}
	testnet.Must(t, n.Close())
	testnet.Must(t, Remove("banmesh"))
}

func TestOlderKernelsAreServed(t *testing.T) {
	for _, without := range []features{{mapGate: true}, {destroy: true}, {mapGate: true, destroy: true, persist: true}} {
		t.Run(fmt.Sprintf("%+v", without), func(t *testing.T) {
			testnet.Enter(t)
			ctx := testnet.Context(t)
			o := Options{}
			o.testing.without = without
			n := newTest(t, o)
			c := simple()
			c.Never = testnet.Prefixes("10.9.0.9", "2001:db8:9::9")
			testnet.Must(t, n.Configure(ctx, c))
			testnet.Must(t, n.Replace(ctx, slices.Values(many(2_500, 1))))
			testnet.Must(t, n.Apply(ctx, many(2_600, 2)[100:], []firewall.Key{many(1, 1)[0].Key(), many(5, 1)[4].Key()}))
			inStep(t, n)
			testnet.Feed(t, "add element inet banmesh deny4 { 192.0.2.77 timeout 1h : 0xb22bc06f }", "nft", "-f", "-")
			testnet.Must(t, n.Apply(ctx, bans("all", time.Now().Add(time.Hour), "192.0.2.77"), nil))
			testnet.Feed(t, "flush ruleset", "nft", "-f", "-")
			d, err := n.Check(ctx)
			if err != nil || !d.Cured {
				t.Errorf("%+v, %v", d, err)
			}
			inStep(t, n)
			testnet.Must(t, n.Replace(ctx, slices.Values(bans("sshd", time.Now().Add(time.Hour), "10.9.0.2", "10.9.0.9", "2001:db8:9::/64"))))
			inStep(t, n)

			h := testnet.Attach(t, "veth0", []string{"10.9.0.1/24", "2001:db8:9::1/64"},
				[]string{"10.9.0.2/24", "10.9.0.9/24", "10.9.0.200/24", "2001:db8:9::2/64", "2001:db8:9::9/64", "2001:db8:9:1::7/128"})
			testnet.Run(t, "ip", "route", "add", "2001:db8:9:1::7/128", "dev", "veth0")
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
				to, proof := testnet.ListenUDP(t, net.JoinHostPort(x.ip, fmt.Sprint(x.port))), testnet.ListenUDP(t, net.JoinHostPort(x.ip, "9999"))
				h.Proof = x.proof
				if got := h.Arrives(x.from, to, proof); got != x.want {
					t.Errorf("%s to %d: arrives %v, want %v", x.from, x.port, got, x.want)
				}
				to.Close()
				proof.Close()
			}
		})
	}
}

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
	n := New(o)
	testnet.Must(t, n.Configure(context.Background(), simple()))
	testnet.Must(t, n.Replace(context.Background(), slices.Values(many(50_000, 1))))
}

func TestKilledAmidALoadNothingIsLost(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperLoad$")
	cmd.Env = append(os.Environ(), "FIREWALL_LOAD=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(50_000, 1))))
	inStep(t, n)
}

func TestKilledAfterSingleChangesLittleIsWrittenAgain(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	all := many(5_100, 1)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all[:5_000])))
	for i := range 100 {
		testnet.Must(t, n.Apply(ctx, all[5_000+i:5_001+i], nil))
	}
	// As the kernel does for a process that is killed.
	n.closed = true
	testnet.Must(t, n.k.close())
	testnet.Must(t, unix.Close(n.lock))

	var written int
	o := Options{}
	o.testing.stall = func(done, _ int) { written += done }
	n = newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	inStep(t, n)
	if written == 0 || written > 2_500 {
		t.Errorf("%d bans were written again", written)
	}
}

// A kernel that refuses connection tracking is found out at every start, also
// beside the table of an earlier process: a table that could never be written
// would keep the bans as they were for ever.
func TestASmallKernelIsFoundOutAtEveryStart(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	for name, ask := range map[string]func(*firewall.Config){
		"tracking": func(c *firewall.Config) { c.Scopes[0].Remember = time.Hour },
		"traps":    func(c *firewall.Config) { c.Honeyports, c.HoneyportTo = []uint16{23}, 4000 },
	} {
		for _, start := range []string{"first", "second"} {
			o := Options{}
			o.testing.without = features{track: true, trap: true}
			n := newTest(t, o)
			c := simple()
			ask(&c)
			if err := n.Configure(ctx, c); !errors.Is(err, firewall.ErrUnsupported) {
				t.Errorf("%s: the %s start: %v", name, start, err)
			}
			// The agent goes on with less.
			testnet.Must(t, n.Configure(ctx, simple()))
			testnet.Must(t, n.Replace(ctx, slices.Values(bans("sshd", time.Now().Add(time.Hour), "192.0.2.1"))))
			inStep(t, n)
			testnet.Must(t, n.Close())
		}
		testnet.Must(t, Remove("banmesh"))
	}
	// This one can both.
	k, err := openKernel("banmesh")
	testnet.Must(t, err)
	defer k.close()
	if !k.accepts(trackingTrial) || !k.accepts(trapTrial) {
		t.Error("this kernel lacks something")
	}
	if left := testnet.Run(t, "nft", "list", "tables"); left != "" {
		t.Errorf("the probe left %s", left)
	}
}

// A killed process leaves bans that it had not written down. Those that end soon are in no
// checksum that counts, and are compared by the first check; nobody else put them there.
func TestARestartBlamesNobodyForItsOwnLeftovers(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	// All in the bucket that time is in.
	now := time.Unix(time.Now().Unix()>>desired.BucketBits<<desired.BucketBits+1, 0)
	o := Options{Now: func() time.Time { return now }}
	o.testing.mono = func() time.Duration { return 0 }
	all := bans("sshd", now.Add(time.Minute), "192.0.2.1", "192.0.2.2", "192.0.2.3")
	n := newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all)))
	testnet.Must(t, n.Close())
	n = newTest(t, o)
	testnet.Must(t, n.Configure(ctx, simple()))
	testnet.Must(t, n.Replace(ctx, slices.Values(all[:2])))
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("its own leftovers: %+v, %v", d, err)
	}
	inStep(t, n)
	testnet.Run(t, "nft", "add", "element", "inet", "banmesh", mapHost4, "{ 192.0.2.9 timeout 1h : 0x1 }")
	if d, err := n.Check(ctx); err != nil || !d.Changed {
		t.Errorf("another program's ban: %+v, %v", d, err)
	}
	inStep(t, n)
}
