package federation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/span"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// The attacks that the design answers, each against real sessions, a real
// broker to which everybody may write, and where it matters the real ledger
// and policy.

// An attacker can write anything to the broker, and has heard everything.
type attacker struct {
	t     *testing.T
	c     mqtt.Client
	mu    sync.Mutex
	heard map[string][]byte
}

func newAttacker(t *testing.T, url string) *attacker {
	t.Helper()
	a := &attacker{t: t, heard: map[string][]byte{}}
	o := mqtt.NewClientOptions().AddBroker(url).SetClientID("attacker").SetProtocolVersion(4).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(m.Payload()) > 0 {
			a.heard[m.Topic()] = m.Payload()
		}
	})
	a.c = mqtt.NewClient(o)
	if tok := a.c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	t.Cleanup(func() { a.c.Disconnect(0) })
	if tok := a.c.Subscribe("banmesh/#", 1, nil); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	return a
}

func (a *attacker) publish(topic string, payload []byte) {
	a.t.Helper()
	if tok := a.c.Publish(topic, 1, true, payload); tok.Wait() && tok.Error() != nil {
		a.t.Fatal(tok.Error())
	}
	// And where everybody listens.
	if n, err := wire.ParseTopicName(topic); err == nil && n.Kind.HasLive() {
		if tok := a.c.Publish(n.Live().String(), 1, false, payload); tok.Wait() && tok.Error() != nil {
			a.t.Fatal(tok.Error())
		}
	}
}

// recorded gives the messages heard so far, of topics that contain the text.
func (a *attacker) recorded(contains string) map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[string][]byte{}
	for t, p := range a.heard {
		if strings.Contains(t, contains) {
			out[t] = p
		}
	}
	return out
}

// attacked is a pair of nodes of which bob follows alice, and who attacks them.
func attacked(t *testing.T) (alice, bob *testNode, a *attacker, f ban.Feed) {
	t.Helper()
	b := mosquitto(t)
	alice, bob = newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	a = newAttacker(t, b.url)
	f = alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}, {"livepeer", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the first ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
	return alice, bob, a, f
}

// afterwards lets alice say something, and checks that bob holds just that and
// the first ban.
func afterwards(t *testing.T, alice, bob *testNode, f ban.Feed) {
	t.Helper()
	alice.say("sshd", "192.0.2.2")
	await(t, "a ban after the attack", func() bool { return slices.Contains(bob.has(f), "192.0.2.2") })
	if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
		t.Errorf("bob holds %v", got)
	}
}

func refused(t *testing.T, n *testNode, reasons ...string) {
	t.Helper()
	for _, r := range reasons {
		await(t, "a refusal for "+r, func() bool { return n.s.Counts().Refused[r] > 0 })
	}
}

// signed makes a message of a feed with any key.
func signed(key ed25519.PrivateKey, f ban.Feed, epoch, number uint64, issued time.Time, body wire.Body) []byte {
	return wire.Seal(key, wire.Header{Kind: body.Kind(), Network: "testnet", Topic: f.Topic, Operator: f.Operator, Epoch: epoch, Number: number, Issued: issued}, body.Append(nil))
}

func banning(target string) *wire.Delta {
	return &wire.Delta{GC: wire.Minutes(time.Now()), Up: wire.SortClaims([]ban.Claim{{Target: ban.MustTarget(target), End: time.Now().Add(time.Hour), Basis: ban.BasisStrong}}, time.Now())}
}

func TestAttack01AForgedEvent(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	at := wire.FeedName("testnet", f, wire.KindDelta, 2)
	v := alice.status(f)
	thief := testKey("thief")
	a.publish(at.String(), signed(thief, f, v.Epoch, 2, time.Now(), banning("9.9.9.9")))
	good := signed(alice.id.Signer(), f, v.Epoch, 2, time.Now(), banning("9.9.9.9"))
	for i := 0; i < len(good); i += 7 {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		a.publish(at.String(), bad)
	}
	a.publish(at.String(), good[64:])                              // no signature
	a.publish(at.String(), append(make([]byte, 64), good[64:]...)) // an empty one
	g := ban.Feed{Topic: "sshd", Operator: f.Operator, Node: ban.NodeOf(thief.Public().(ed25519.PublicKey))}
	a.publish(wire.FeedName("testnet", g, wire.KindDelta, 2).String(), signed(thief, g, v.Epoch, 2, time.Now(), banning("9.9.9.9")))
	refused(t, bob, refusedSignature, refusedMisplaced, refusedFormat)
	afterwards(t, alice, bob, f)
}

func TestAttack02ReplayInAnotherTopicOrNetwork(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	for topic, payload := range a.recorded("/sshd/") {
		a.publish(strings.Replace(topic, "/sshd/", "/livepeer/", 1), payload)
		a.publish(strings.Replace(topic, "/testnet/", "/othernet/", 1), payload)
	}
	refused(t, bob, refusedMisplaced)
	f2 := f
	f2.Topic = "livepeer"
	if got := bob.has(f2); len(got) > 0 {
		t.Errorf("bob holds %v in another topic", got)
	}
	afterwards(t, alice, bob, f)
}

func TestAttack03RollbackAfterARestart(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	await(t, "the first delta", func() bool { return len(a.recorded("/delta/1")) > 0 })
	old := a.recorded("/sshd/")
	alice.say("sshd", "192.0.2.2")
	if err := alice.s.Say("sshd", nil, ban.Withdraw(ban.ReasonEnded, ban.MustTarget("192.0.2.1"))); err != nil {
		t.Fatal(err)
	}
	await(t, "the unban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.2"}) })
	alice.stop()
	bob.stop()
	for topic, payload := range a.recorded("/sshd/") {
		if p, ok := old[topic]; ok {
			payload = p
		} else {
			payload = nil
		}
		a.publish(topic, payload)
	}
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	bob.run()
	await(t, "the old messages", func() bool { return bob.s.Counts().Received >= 2 })
	if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.2"}) {
		t.Errorf("bob went back to %v", got)
	}
}

func TestAttack04AFeedIsErased(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	await(t, "the head", func() bool { return len(a.recorded("/head")) > 0 })
	for topic := range a.recorded("/sshd/") {
		a.publish(topic, nil)
	}
	refused(t, bob, refusedEmpty)
	if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("erasing changed what bob holds: %v", got)
	}
	// The author notices and puts everything back.
	carol := newNode(t, "carol", alice.brokers[0])
	carol.s.Follow([]Following{{"sshd", f.Operator}})
	carol.run()
	await(t, "a newcomer", func() bool { return slices.Equal(carol.has(f), []string{"192.0.2.1"}) })
	afterwards(t, alice, bob, f)
}

func TestAttack05AnEpochOfTheFarFuture(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	key := alice.id.Signer()
	far := uint64(wire.Seconds(time.Now().AddDate(74, 0, 0))) << wire.EpochShift
	head := &wire.Head{N: 1 << 40, TTL: time.Hour, GC: wire.Minutes(time.Now()), Ring: ring, Pieces: &wire.Pieces{}}
	// The author's own session must not take it for a lost state of its own.
	alice.stop()
	a.publish(wire.FeedName("testnet", f, wire.KindHead, 0).String(), signed(key, f, far, 1, time.Now(), head))
	a.publish(wire.FeedName("testnet", f, wire.KindDelta, 9).String(), signed(key, f, alice.status(f).Epoch, 9, time.Now().Add(time.Hour), banning("9.9.9.9")))
	refused(t, bob, refusedFuture)
	alice.open()
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	afterwards(t, alice, bob, f)
}

func TestAttack06AFloodOfATrustedPeer(t *testing.T) {
	alice, bob, _, f := attacked(t)
	v := alice.status(f)
	alice.stop()
	bob.stop()
	now := time.Now()
	bob.clock = func() time.Time { return now } // all within one moment
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const flood = rateBurst + 256
	for i := range flood {
		target := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String()
		p := signed(alice.id.Signer(), f, v.Epoch, uint64(1000+i), now, banning(target))
		bob.s.receive(packet{topic: wire.FeedName("testnet", f, wire.KindDelta, i%ring).String(), payload: p})
	}
	if got := bob.s.Counts().Refused[refusedRate]; got != flood-rateBurst {
		t.Errorf("%d of %d messages were refused unread, want %d", got, flood, flood-rateBurst)
	}
	w := bob.s.reader.followers[f]
	if len(w.pending.byN) > wire.MaxRing || w.pending.bytes > wire.MaxPendingBytes {
		t.Errorf("%d deltas of %d bytes wait", len(w.pending.byN), w.pending.bytes)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the flood left %d MiB", grown>>20)
	}
	if got := bob.has(f); len(got) != 1 {
		t.Errorf("bob holds %v", got)
	}
}

// judged gives bob a real ledger with a policy over alice and carol.
func judged(t *testing.T, rules policy.TopicSource, never ...string) (alice, carol, bob *testNode, l *ledger.Ledger) {
	t.Helper()
	b := mosquitto(t)
	alice, carol, bob = newNode(t, "alice", b.url), newNode(t, "carol", b.url), newNode(t, "bob", b.url)
	none := span.Of(0)
	p, err := policy.Compile(policy.Source{
		Operators: map[string]policy.OperatorSource{
			"alice": {ID: alice.id.Operator().String(), Probation: &none}, "carol": {ID: carol.id.Operator().String(), Probation: &none},
		},
		Topics: map[string]policy.TopicSource{"sshd": rules},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var entries []neverban.Entry
	for _, s := range never {
		entries = append(entries, neverban.Entry{Prefix: netip.MustParsePrefix(s)})
	}
	st, err := store.Open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	if l, err = ledger.Open(ledger.Options{Store: st, Policy: p, NeverBan: neverban.NewSet(entries)}); err != nil {
		t.Fatal(err)
	}
	bob.s.o.Apply = func(ctx context.Context, c ban.Change) error { return errors.Join(l.Peers.Apply(c), bob.apply(ctx, c)) }
	bob.s.o.Disputed = func(_ context.Context, f ban.Feed, claims []ban.Claim) error {
		var list []ledger.Dispute
		for _, c := range claims {
			list = append(list, ledger.Dispute{Target: c.Target, End: c.End})
		}
		return l.Peers.Dispute(f, list)
	}
	bob.s.Follow([]Following{{"sshd", alice.id.Operator()}, {"sshd", carol.id.Operator()}})
	for _, n := range []*testNode{alice, carol} {
		n.s.Publish([]ban.Topic{"sshd"})
	}
	for _, n := range []*testNode{alice, carol, bob} {
		n.run()
	}
	return alice, carol, bob, l
}

func enforced(l *ledger.Ledger) (out []string) {
	for _, e := range l.Enforcement.Desired() {
		out = append(out, e.Target.String())
	}
	slices.Sort(out)
	return out
}

// heard waits until the ledger has the claims of n, and gives the enforced targets.
func heard(t *testing.T, n, bob *testNode, l *ledger.Ledger, claims ...string) []string {
	t.Helper()
	n.say("sshd", claims...)
	await(t, "the claims", func() bool {
		got := bob.has(n.feed("sshd"))
		return !slices.ContainsFunc(claims, func(s string) bool { return !slices.Contains(got, ban.MustTarget(s).String()) })
	})
	return enforced(l)
}

func TestAttack07ABanOfWhatMustNotBeBanned(t *testing.T) {
	t.Parallel()
	alice, _, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone", Prefix: []string{"v4/8"}}, "203.0.113.0/28", "2001:db8:1::/64")
	got := heard(t, alice, bob, l, "203.0.113.5", "203.0.113.0/24", "192.0.2.9")
	if !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Errorf("enforced: %v", got)
	}
	// A third attempt within a day is one too many: the operator is quarantined.
	if got := heard(t, alice, bob, l, "2001:db8:1::5", "192.0.2.10"); slices.Contains(got, "192.0.2.10") {
		t.Errorf("enforced after three strikes: %v", got)
	}
}

func TestAttack08AHugePrefix(t *testing.T) {
	t.Parallel()
	alice, _, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone"})
	got := heard(t, alice, bob, l, "0.0.0.0/1", "2000::/3", "192.0.2.0/24", "192.0.2.9")
	if !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Errorf("enforced: %v", got)
	}
}

func TestAttack09AnInnocentAddressThatWasSpoofed(t *testing.T) {
	t.Parallel()
	alice, _, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone", Require: "hits >= 3 and tcp"})
	spoofed := ban.Claim{Target: ban.MustTarget("198.51.100.1"), End: time.Now().Add(time.Hour), Class: ban.ClassFlood, Hits: 200, Basis: ban.BasisStrong}
	if err := alice.s.Say("sshd", []ban.Claim{spoofed}, nil); err != nil {
		t.Fatal(err)
	}
	got := heard(t, alice, bob, l, "192.0.2.9")
	if !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Errorf("enforced: %v", got)
	}
}

func TestAttack10ManyKeysOfOneOperator(t *testing.T) {
	t.Parallel()
	alice, carol, bob, l := judged(t, policy.TopicSource{Ban: "2 of everyone"})
	// Alice certifies a second machine, which says the same.
	twin := newNode(t, "twin", alice.brokers[0])
	twin.stop()
	dir := filepath.Join(twin.dir, "keys")
	for _, name := range []string{"operator.key", "operator.card"} {
		raw, err := os.ReadFile(filepath.Join(alice.dir, "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.UpdateCard(time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	twin.open()
	twin.s.Publish([]ban.Topic{"sshd"})
	twin.run()
	heard(t, alice, bob, l, "192.0.2.9")
	if got := heard(t, twin, bob, l, "192.0.2.9"); len(got) != 0 {
		t.Errorf("two machines of one operator made a quorum: %v", got)
	}
	if got := heard(t, carol, bob, l, "192.0.2.9"); !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Errorf("two operators made none: %v", got)
	}
}

func TestAttack11FramingIsDisputed(t *testing.T) {
	t.Parallel()
	alice, carol, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone", Dispute: "any of everyone"})
	if got := heard(t, alice, bob, l, "192.0.2.9"); !slices.Equal(got, []string{"192.0.2.9"}) {
		t.Fatalf("enforced: %v", got)
	}
	if err := carol.s.Dispute("sshd", []ban.Claim{{Target: ban.MustTarget("192.0.2.9"), End: time.Now().Add(time.Hour), Basis: ban.BasisStrong}}); err != nil {
		t.Fatal(err)
	}
	await(t, "the dispute", func() bool { return len(enforced(l)) == 0 })
}

func TestAttack12AStolenNodeKey(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	card, _ := alice.id.Card()
	next := wire.NextCard(card, time.Now())
	next.Revoke(f.Node, time.Now().Add(-time.Hour))
	raw, err := next.Sign(rootOf(alice))
	if err != nil {
		t.Fatal(err)
	}
	key, v := alice.id.Signer(), alice.status(f)
	alice.stop()
	a.publish(wire.Name{Network: "testnet", Kind: wire.KindCard, Operator: f.Operator}.String(), raw)
	await(t, "the purge", func() bool { return len(bob.has(f)) == 0 })
	// The thief goes on, and dates messages back.
	a.publish(wire.FeedName("testnet", f, wire.KindDelta, 2).String(), signed(key, f, v.Epoch, 2, time.Now().Add(-2*time.Hour), banning("9.9.9.9")))
	if s := bob.status(f).Status; s != StatusRevoked {
		t.Errorf("the feed is %s", s)
	}
	if got := bob.has(f); len(got) != 0 {
		t.Errorf("bob holds %v", got)
	}
}

func TestAttack13AnotherRootKey(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	at := wire.Name{Network: "testnet", Kind: wire.KindCard, Operator: f.Operator}.String()
	mine := &wire.Card{Serial: 99, Issued: time.Now(), Name: "alice", Certificates: []wire.Certificate{{Key: publicOf(testKey("thief")), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}}}
	raw, err := mine.Sign(testKey("thief-root"))
	if err != nil {
		t.Fatal(err)
	}
	a.publish(at, raw)
	refused(t, bob, refusedMisplaced)
	if c, _ := bob.s.Card(f.Operator); c.Serial == 99 {
		t.Error("a card of another root key was taken")
	}
	afterwards(t, alice, bob, f)
}

func TestAttack14TwoStories(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	v := alice.status(f)
	alice.stop()
	at := wire.FeedName("testnet", f, wire.KindHead, 0).String()
	head := &wire.Head{N: 1, TTL: time.Hour, GC: wire.Minutes(time.Now()), Ring: ring, Pieces: &wire.Pieces{}}
	a.publish(at, signed(alice.id.Signer(), f, v.Epoch, 500, time.Now(), head))
	head.Count = 7
	a.publish(at, signed(alice.id.Signer(), f, v.Epoch, 500, time.Now(), head))
	await(t, "the alarm", func() bool { return bob.status(f).Status == StatusEquivocating })
	if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.1"}) {
		t.Errorf("bob holds %v", got)
	}
	// It outlives a restart, and ends with a new epoch.
	bob.stop()
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := bob.status(f).Status; s != StatusEquivocating {
		t.Errorf("after a restart the feed is %s", s)
	}
	bob.run()
	alice.open()
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	afterwards(t, alice, bob, f)
}

func TestAttack15AClockThatIsADayWrong(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			alice, bob, _, f := attacked(t)
			bob.stop()
			var mu sync.Mutex
			offset := skew
			bob.clock = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(offset)
			}
			bob.open()
			bob.s.Follow([]Following{{"sshd", f.Operator}})
			if err := bob.s.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			bob.run()
			if got := bob.has(f); !slices.Equal(got, []string{"192.0.2.1"}) {
				t.Errorf("the wrong clock changed what bob holds: %v", got)
			}
			await(t, "the broker", func() bool { return bob.s.Brokers()[0].Connected })
			mu.Lock()
			offset = 0
			mu.Unlock()
			afterwards(t, alice, bob, f)
		})
	}
}

func TestAttack16ABrokerThatAnnouncesAHugePacket(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cut := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			cut <- err
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte{0x20, 2, 0, 0})                // CONNACK
		_, _ = c.Write([]byte{0x30, 0xff, 0xff, 0xff, 0x7f}) // PUBLISH of 256 MiB
		_, err = io.Copy(io.Discard, c)
		cut <- err
	}()
	n := newNode(t, "n", "tcp://"+l.Addr().String())
	n.run()
	select {
	case <-cut:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection was not cut")
	}
	await(t, "the reason", func() bool {
		return n.s.Brokers()[0].Health == HealthMisbehaving
	})
	// And a payload just above the limit, through a broker that carries it.
	alice, bob, a, f := attacked(t)
	a.publish(wire.FeedName("testnet", f, wire.KindDelta, 2).String(), make([]byte, wire.MaxPayload+1))
	refused(t, bob, refusedSize)
	afterwards(t, alice, bob, f)
}

func TestAttack17NothingPrivateLeaves(t *testing.T) {
	t.Parallel()
	alice, bob, a, f := attacked(t)
	afterwards(t, alice, bob, f)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{alice.dir, string(alice.id.Signer().Seed()), string(rootOf(alice).Seed())}
	if len(host) > 3 {
		secrets = append(secrets, host)
	}
	// The eavesdropper is a client of its own, and hears later than bob.
	await(t, "the eavesdropper hears a card, a head, and two deltas", func() bool { return len(a.recorded("")) >= 4 })
	all := a.recorded("")
	for topic, payload := range all {
		for _, s := range secrets {
			if bytes.Contains(payload, []byte(s)) || strings.Contains(topic, s) {
				t.Errorf("%s holds a secret", topic)
			}
		}
		n, err := wire.ParseTopicName(topic)
		if err != nil {
			t.Fatal(err)
		}
		if n.Kind == wire.KindLive {
			if n, err = wire.OfLive(n, payload); err != nil {
				t.Fatal(err)
			}
		}
		m, err := wire.Open(n, payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range m.Describe().Claims {
			if c.Target != "192.0.2.1" && c.Target != "192.0.2.2" {
				t.Errorf("%s says %+v", topic, c)
			}
		}
	}
}

func TestAttack18APeerBansAgainWhatWasUnbannedHere(t *testing.T) {
	t.Parallel()
	alice, carol, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone"})
	heard(t, alice, bob, l, "192.0.2.9")
	if _, err := l.Exemptions.Unban(ban.MustTarget("192.0.2.9"), 7*24*time.Hour, "by hand"); err != nil {
		t.Fatal(err)
	}
	if got := heard(t, carol, bob, l, "192.0.2.9", "192.0.2.10"); !slices.Equal(got, []string{"192.0.2.10"}) {
		t.Errorf("enforced: %v", got)
	}
}

func TestAttack19ABrokerThatDropsWhatAJoinerCannotTakeAtOnce(t *testing.T) {
	t.Parallel()
	// Stock mosquitto queues 1,000 messages and 20 in flight. A hundred feeds
	// with rings are 3,500 retained messages.
	b := mosquitto(t)
	const nodes = 40
	root := testKey("many")
	var o ban.Operator
	pub := publicOf(root)
	o = ban.OperatorOf(pub[:])
	now := time.Now().Add(-2 * time.Hour) // before the feeds began
	card := &wire.Card{Serial: 1, Issued: now}
	a := newAttacker(t, b.url) // a willing hand here: it publishes for them
	for i := range nodes {
		key := testKey(fmt.Sprintf("node %d", i))
		card.Certify(publicOf(key), now)
		s := openStore(t)
		w, err := openAuthor("testnet", "sshd", o, key, noCard, s, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for j := range 40 {
			at := time.Now().Add(-time.Hour).Add(time.Duration(j) * 2 * time.Second)
			target := ban.MustTarget(fmt.Sprintf("10.%d.0.%d", i, j))
			if _, err := w.say(at, wire.SortClaims([]ban.Claim{{Target: target, End: time.Now().Add(time.Hour), Basis: ban.BasisStrong}}, at), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.retained(func(o outgoing) { a.publish(o.name.String(), o.payload) }); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := card.Sign(root)
	if err != nil {
		t.Fatal(err)
	}
	a.publish(wire.Name{Network: "testnet", Kind: wire.KindCard, Operator: o}.String(), raw)
	bob := newNode(t, "bob", b.url)
	bob.s.Follow([]Following{{"sshd", o}})
	bob.run()
	t.Cleanup(func() {
		if t.Failed() {
			words := map[string]int{}
			for _, f := range bob.s.Feeds() {
				words[f.Status]++
			}
			t.Logf("feeds: %v, counts %+v, brokers %+v", words, bob.s.Counts(), bob.s.Brokers())
		}
	})
	await(t, "every feed", func() bool {
		n, claims := 0, 0
		for _, f := range bob.s.Feeds() {
			if f.Status == StatusSynced {
				n++
			}
			claims += f.Claims
		}
		return n == nodes && claims == nodes*40
	})
}
