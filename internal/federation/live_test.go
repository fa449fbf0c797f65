package federation

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokers are those that the live tests run against.
var brokers = map[string]func(testing.TB) *testBroker{"mosquitto": mosquitto, "mochi": mochiBroker}

// A testBroker is a broker that can be stopped and started again, empty.
type testBroker struct {
	url         string
	start, stop func()
	refuses     atomic.Bool                   // subscriptions; the library's broker only
	loses       atomic.Bool                   // retained messages; the library's broker only
	stalls      atomic.Pointer[chan struct{}] // publications, until it is closed; the library's broker only
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// mosquitto is the distribution's broker in its stock configuration.
func mosquitto(tb testing.TB) *testBroker {
	tb.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			tb.Skip("mosquitto is not installed")
		}
	}
	port := freePort(tb)
	conf := filepath.Join(tb.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listener %d 127.0.0.1\nallow_anonymous true\n", port), 0o600); err != nil {
		tb.Fatal(err)
	}
	b := &testBroker{url: fmt.Sprintf("tcp://127.0.0.1:%d", port)}
	var cmd *exec.Cmd
	b.start = func() {
		cmd = exec.Command(path, "-c", conf)
		if err := cmd.Start(); err != nil {
			tb.Fatal(err)
		}
		await(tb, "mosquitto", func() bool {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	b.stop = func() {
		if cmd != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			cmd = nil
		}
	}
	b.start()
	tb.Cleanup(b.stop)
	return b
}

// mochiBroker is the library that our own broker is made of, unguarded.
func mochiBroker(tb testing.TB) *testBroker {
	tb.Helper()
	port := freePort(tb)
	b := &testBroker{url: fmt.Sprintf("tcp://127.0.0.1:%d", port)}
	var srv *mochi.Server
	b.start = func() {
		srv = mochi.New(&mochi.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err := srv.AddHook(&allowAll{broker: b}, nil); err != nil {
			tb.Fatal(err)
		}
		if err := srv.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: fmt.Sprintf("127.0.0.1:%d", port)})); err != nil {
			tb.Fatal(err)
		}
		if err := srv.Serve(); err != nil {
			tb.Fatal(err)
		}
	}
	b.stop = func() {
		if srv != nil {
			srv.Close()
			srv = nil
		}
	}
	b.start()
	tb.Cleanup(b.stop)
	return b
}

// allowAll lets every client do everything, or all but subscribe.
type allowAll struct {
	mochi.HookBase
	broker *testBroker
}

func (*allowAll) ID() string { return "allow-all" }
func (*allowAll) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPublish
}
func (*allowAll) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (h *allowAll) OnACLCheck(_ *mochi.Client, _ string, write bool) bool {
	return write || !h.broker.refuses.Load()
}

func (h *allowAll) OnPublish(_ *mochi.Client, p packets.Packet) (packets.Packet, error) {
	if until := h.broker.stalls.Load(); until != nil {
		<-*until
	}
	if h.broker.loses.Load() {
		p.FixedHeader.Retain = false // acknowledged and handed on, but not kept
	}
	return p, nil
}

// await polls until ok holds, and fails the test after a while.
func await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond) // a poll with a deadline
	}
}

// A testNode is a session with a ledger that only remembers.
type testNode struct {
	tb      testing.TB
	dir     string
	id      *keys.Identity
	store   *store.Store
	s       *Session
	brokers []string
	others  []string // of the first broker
	clock   func() time.Time
	cancel  context.CancelFunc
	done    chan error

	mu       sync.Mutex
	ledger   map[ban.Feed]map[ban.Target]ban.Claim
	disputes map[ban.Feed][]ban.Claim
	resets   int
}

func newNode(tb testing.TB, name string, urls ...string) *testNode {
	tb.Helper()
	n := &testNode{tb: tb, dir: tb.TempDir(), brokers: urls, clock: time.Now}
	id, err := keys.Open(filepath.Join(n.dir, "keys"), name, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	n.id = id
	n.open()
	tb.Cleanup(n.stop)
	return n
}

// open makes the session, as at the start of a process.
func (n *testNode) open() {
	n.tb.Helper()
	var err error
	if n.id, err = keys.Load(filepath.Join(n.dir, "keys")); err != nil {
		n.tb.Fatal(err)
	}
	if n.store, err = store.Open(filepath.Join(n.dir, "agent.db")); err != nil {
		n.tb.Fatal(err)
	}
	n.mu.Lock()
	n.ledger = map[ban.Feed]map[ban.Target]ban.Claim{}
	n.disputes = map[ban.Feed][]ban.Claim{}
	n.mu.Unlock()
	o := Options{Network: "testnet", Identity: n.id, Store: n.store, Apply: n.apply, Disputed: n.disputed, Now: func() time.Time { return n.clock() }}
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", n.id.Node())
	}
	for _, u := range n.brokers {
		o.Brokers = append(o.Brokers, Broker{URL: u})
	}
	if len(n.others) > 0 {
		o.Brokers[0].Others = n.others
	}
	if n.s, err = New(o); err != nil {
		n.tb.Fatal(err)
	}
	for _, l := range n.s.links {
		l.rest = func() time.Duration { return backoffLeast } // tests stop brokers often
	}
}

func (n *testNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	go func(s *Session, done chan<- error) { done <- s.Run(ctx) }(n.s, n.done)
}

// stop ends the process.
func (n *testNode) stop() {
	if n.cancel != nil {
		n.cancel()
		if err := <-n.done; err != nil {
			n.tb.Errorf("Run: %v", err)
		}
		n.cancel = nil
	}
	if n.store != nil {
		n.store.Close()
		n.store = nil
	}
}

func (n *testNode) apply(_ context.Context, c ban.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.Reset || n.ledger[c.Feed] == nil {
		n.ledger[c.Feed] = map[ban.Target]ban.Claim{}
	}
	if c.Reset {
		n.resets++
	}
	for _, x := range c.Claims {
		n.ledger[c.Feed][x.Target] = x
	}
	for _, x := range c.Withdrawn {
		delete(n.ledger[c.Feed], x.Target)
	}
	return nil
}

func (n *testNode) disputed(_ context.Context, f ban.Feed, c []ban.Claim) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.disputes[f] = c
	return nil
}

// has gives the targets that the node holds of a feed, sorted.
func (n *testNode) has(f ban.Feed) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for t := range n.ledger[f] {
		out = append(out, t.String())
	}
	slices.Sort(out)
	return out
}

func (n *testNode) feed(topic ban.Topic) ban.Feed {
	return ban.Feed{Topic: topic, Operator: n.id.Operator(), Node: n.id.Node()}
}

func (n *testNode) status(f ban.Feed) FeedStatus {
	for _, v := range n.s.Feeds() {
		if v.Feed == f {
			return v
		}
	}
	return FeedStatus{}
}

func (n *testNode) say(topic ban.Topic, targets ...string) {
	n.tb.Helper()
	var claims []ban.Claim
	for _, t := range targets {
		claims = append(claims, ban.Claim{Target: ban.MustTarget(t), End: n.clock().Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Established: true, Basis: ban.BasisStrong})
	}
	if err := n.s.Say(topic, claims, nil); err != nil {
		n.tb.Fatal(err)
	}
}

func eachBroker(t *testing.T, f func(*testing.T, *testBroker)) {
	for name, start := range brokers {
		t.Run(name, func(t *testing.T) { f(t, start(t)) })
	}
}

func TestABanReachesAFollower(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *testBroker) {
		alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
		f := alice.feed("sshd")
		alice.s.Publish([]ban.Topic{"sshd"})
		bob.s.Follow([]Following{{"sshd", f.Operator}})
		alice.say("sshd", "192.0.2.1") // before anybody is connected
		alice.run()
		bob.run()
		await(t, "the first ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
		alice.say("sshd", "192.0.2.2", "2001:db8::/64")
		await(t, "more bans", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1", "192.0.2.2", "2001:db8::/64"}) })
		if err := alice.s.Say("sshd", nil, ban.Withdraw(ban.ReasonEnded, ban.MustTarget("192.0.2.1"))); err != nil {
			t.Fatal(err)
		}
		await(t, "the unban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.2", "2001:db8::/64"}) })
		if v := bob.status(f); v.Status != StatusSynced || v.Name != "alice" {
			t.Errorf("status %+v", v)
		}

		// Bob restarts without a network and knows it all; then hears the rest.
		bob.stop()
		alice.say("sshd", "192.0.2.3")
		bob.open()
		bob.s.Follow([]Following{{"sshd", f.Operator}})
		if err := bob.s.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.2", "2001:db8::/64"}) {
			t.Errorf("after Restore: %v", got)
		}
		bob.run()
		await(t, "what was missed", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.2", "192.0.2.3", "2001:db8::/64"}) })

		// Alice restarts: the same bans, the same numbers.
		before := alice.status(f)
		alice.stop()
		alice.open()
		alice.s.Publish([]ban.Topic{"sshd"})
		alice.run()
		alice.say("sshd", "192.0.2.4")
		await(t, "a ban after a restart", func() bool { return len(bob.has(f)) == 4 })
		if after := alice.status(f); after.Epoch != before.Epoch || after.Batch != before.Batch+1 {
			t.Errorf("epoch %d batch %d, then %d and %d", before.Epoch, before.Batch, after.Epoch, after.Batch)
		}
	})
}

func TestABrokerThatLosesEverythingIsFilledAgain(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *testBroker) {
		alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
		f := alice.feed("sshd")
		b.stop() // down at the start
		alice.s.Publish([]ban.Topic{"sshd"})
		bob.s.Follow([]Following{{"sshd", f.Operator}})
		alice.run()
		bob.run()
		alice.say("sshd", "192.0.2.1")
		b.start()
		await(t, "the first ban", func() bool { return len(bob.has(f)) == 1 })
		b.stop()
		alice.say("sshd", "192.0.2.2")
		if got := bob.has(f); len(got) != 1 {
			t.Errorf("the loss of the broker changed what bob holds: %v", got)
		}
		b.start()
		await(t, "the second ban", func() bool { return len(bob.has(f)) == 2 })
		carol := newNode(t, "carol", b.url)
		carol.s.Follow([]Following{{"sshd", f.Operator}})
		carol.run()
		await(t, "a late joiner", func() bool { return len(carol.has(f)) == 2 })
	})
}

func TestWhoIsNotFollowedIsNotHeard(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	alice.s.Publish([]ban.Topic{"sshd"}) // not livepeer
	bob.s.Follow([]Following{{"livepeer", alice.id.Operator()}, {"sshd", alice.id.Operator()}})
	alice.run()
	bob.run()
	alice.say("livepeer", "192.0.2.9")
	alice.say("sshd", "192.0.2.1")
	await(t, "the published topic", func() bool { return len(bob.has(alice.feed("sshd"))) == 1 })
	if got := bob.has(alice.feed("livepeer")); len(got) != 0 {
		t.Errorf("a topic that is not published was heard: %v", got)
	}
	bob.s.Follow(nil)
	await(t, "the empty Reset", func() bool { return len(bob.has(alice.feed("sshd"))) == 0 })
	alice.say("sshd", "192.0.2.2")
	bob.s.Follow([]Following{{"sshd", alice.id.Operator()}})
	await(t, "following again", func() bool { return len(bob.has(alice.feed("sshd"))) == 2 })
}

func TestDisputesReachFollowers(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	count := func(n *testNode) int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.disputes[f])
	}
	d := ban.Claim{Target: ban.MustTarget("198.51.100.7"), End: time.Now().Add(time.Hour)}
	if err := alice.s.Dispute("sshd", []ban.Claim{d}); err != nil {
		t.Fatal(err)
	}
	await(t, "the dispute", func() bool { return count(bob) == 1 })
	bob.stop()
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if count(bob) != 1 {
		t.Error("the dispute was forgotten")
	}
	bob.run()
	if err := alice.s.Dispute("sshd", nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the dispute", func() bool { return count(bob) == 0 })
}

func TestALargeFeedIsJoined(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *testBroker) {
		alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
		f := alice.feed("sshd")
		alice.s.Publish([]ban.Topic{"sshd"})
		var claims []ban.Claim
		for i := range 50_000 {
			claims = append(claims, ban.Claim{
				Target: ban.MustTarget(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)), End: time.Now().Add(time.Duration(60+i%9000) * time.Minute), Class: ban.ClassScan, Hits: uint8(i % 7),
			})
		}
		if err := alice.s.SaySnapshot("sshd", claims); err != nil {
			t.Fatal(err)
		}
		alice.run()
		bob.s.Follow([]Following{{"sshd", f.Operator}})
		bob.run()
		await(t, "the join", func() bool { return bob.status(f).Status == StatusSynced && len(bob.has(f)) == len(claims) })
		// A jump of the author, and a return after many deltas.
		if err := alice.s.SaySnapshot("sshd", claims[:30_000]); err != nil {
			t.Fatal(err)
		}
		await(t, "the jump", func() bool { return len(bob.has(f)) == 30_000 })
		bob.stop()
		for i := range 200 {
			alice.s.publisher.say("sshd", func(a *author) ([]outgoing, error) { return a.tickNow(time.Now()) })
			alice.say("sshd", fmt.Sprintf("172.16.%d.%d", i/100, i%100))
		}
		bob.open()
		bob.s.Follow([]Following{{"sshd", f.Operator}})
		if err := bob.s.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(bob.has(f)); n != 30_000 {
			t.Errorf("%d claims after Restore", n)
		}
		bob.run()
		await(t, "the return", func() bool { return bob.status(f).Status == StatusSynced && len(bob.has(f)) == 30_200 })
	})
}

// tickNow writes the pending changes as a delta at once.
func (a *author) tickNow(now time.Time) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.commit(func() { a.advance(now, nil, nil) })
	return a.taken(), err
}

func TestAWithdrawnFeedIsEmptyForItsFollowers(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the ban", func() bool { return len(bob.has(f)) == 1 })
	// Withdrawn while no broker is there: that is made up for later.
	b.stop()
	alice.s.Publish(nil)
	await(t, "the withdrawal", func() bool { return alice.status(f).Status == StatusPrivate && alice.status(f).Claims == 0 })
	alice.stop()
	b.start()
	alice.open()
	alice.run()
	await(t, "the empty feed", func() bool { return len(bob.has(f)) == 0 })
	if err := alice.s.SaySnapshot("sshd", []ban.Claim{{Target: ban.MustTarget("192.0.2.2"), End: time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	alice.s.Publish([]ban.Topic{"sshd"})
	await(t, "the feed again", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.2"}) })
}

func TestTwoBrokersAreOneNetwork(t *testing.T) {
	t.Parallel()
	one, two := mochiBroker(t), mochiBroker(t)
	alice, bob := newNode(t, "alice", one.url, two.url), newNode(t, "bob", two.url, one.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the first ban", func() bool { return len(bob.has(f)) == 1 })
	one.stop()
	alice.say("sshd", "192.0.2.2")
	await(t, "a ban by the second broker", func() bool { return len(bob.has(f)) == 2 })
	one.start()
	await(t, "the first broker", func() bool { return alice.s.Brokers()[0].Connected && bob.s.Brokers()[1].Connected })
	two.stop()
	alice.say("sshd", "192.0.2.3")
	await(t, "a ban by the first broker", func() bool { return len(bob.has(f)) == 3 })
}

func TestWhatABrokerRefusesIsAskedForAgain(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	alice.say("sshd", "192.0.2.1")
	b.refuses.Store(true)
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	bob.run()
	await(t, "a refusal", func() bool { return bob.s.Brokers()[0].Refused > 0 })
	b.refuses.Store(false)
	await(t, "the ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
	if got := bob.s.Brokers()[0]; got.Refused != 0 || !got.Connected {
		t.Errorf("afterwards %+v", got)
	}
}

func TestALinkTriesTheAddressesOfABrokerInTurn(t *testing.T) {
	t.Parallel()
	one, two := mochiBroker(t), mochiBroker(t)
	two.stop()
	alice := newNode(t, "alice", one.url)
	alice.others = []string{two.url}
	alice.stop()
	alice.open()
	alice.run()
	at := func(url string) func() bool {
		return func() bool {
			b := alice.s.Brokers()
			return len(b) == 1 && b[0].Connected && b[0].URL == url
		}
	}
	await(t, "the first address", at(one.url))
	one.stop()
	two.start()
	await(t, "the second address", at(two.url))
	two.stop()
	one.start()
	await(t, "the first address again", at(one.url))
}

func TestABackoffTimerPausesLongerEachTime(t *testing.T) {
	t.Parallel()
	b := backoffTimer{least: time.Microsecond, most: 3 * time.Microsecond}
	b.set(false)
	if b.c() != nil {
		t.Error("it runs before it is set")
	}
	for _, want := range []time.Duration{1, 2, 3, 3} {
		b.set(true)
		b.set(true) // no second pause while one lasts
		if b.pause != want*time.Microsecond {
			t.Errorf("pause %v, want %v", b.pause, want*time.Microsecond)
		}
		<-b.c()
		b.due = true
	}
	b.set(false)
	b.set(true)
	if b.pause != time.Microsecond {
		t.Errorf("after an end the pause is %v", b.pause)
	}
}

func TestARevokedNodeIsPurged(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the ban", func() bool { return len(bob.has(f)) == 1 })
	// The operator finds that the key was stolen an hour ago.
	card, _ := alice.id.Card()
	next := wire.NextCard(card, time.Now())
	next.Certificates = nil
	next.Revocations = []wire.Revocation{{Node: f.Node, Since: time.Now().Add(-time.Hour)}}
	raw, err := next.Sign(rootOf(alice))
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.s.AddCard(raw); err != nil {
		t.Fatal(err)
	}
	await(t, "the purge", func() bool { return len(bob.has(f)) == 0 && bob.status(f).Status == StatusRevoked })
	alice.say("sshd", "192.0.2.2")
	bob.stop()
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob.run()
	await(t, "the refusal", func() bool { return bob.status(f).Status == StatusRevoked })
	if got := bob.has(f); len(got) != 0 {
		t.Errorf("a revoked node is heard: %v", got)
	}
}

func TestARestoredBackupBeginsANewEpoch(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the first ban", func() bool { return len(bob.has(f)) == 1 })
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := alice.store.Backup(backup); err != nil {
		t.Fatal(err)
	}
	alice.say("sshd", "192.0.2.2")
	await(t, "the second ban", func() bool { return len(bob.has(f)) == 2 })
	epoch := alice.status(f).Epoch
	alice.stop()
	if err := os.Rename(backup, filepath.Join(alice.dir, "agent.db")); err != nil {
		t.Fatal(err)
	}
	alice.open()
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.say("sshd", "192.0.2.3") // with a number that was used before
	alice.run()
	await(t, "the state of the backup and what was said since", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1", "192.0.2.3"}) })
	if v := alice.status(f); v.Epoch <= epoch || v.Status != StatusWriting {
		t.Errorf("alice is at %+v", v)
	}
}
