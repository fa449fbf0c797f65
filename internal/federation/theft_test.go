package federation

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

// A thief has a node's key and speaks to one of its two brokers. (Two clients
// of one name push each other off a broker, so the machines meet only where the
// node listens to a broker that the thief writes to by another name.)
type thief struct {
	*attacker
	t    *testing.T
	key  ed25519.PrivateKey
	feed ban.Feed
}

// says publishes a ban in the newest epoch, and a head that commits to it.
func (x *thief) says(epoch uint64, target string) {
	x.t.Helper()
	now := time.Now()
	d := banning(target)
	var s set
	for i := range d.Up {
		s.put(&d.Up[i])
	}
	d.Fingerprint = s.fingerprint()
	gc := wire.Minutes(now) - 1
	d.GC = gc
	x.publish(wire.FeedName("testnet", x.feed, wire.KindDelta, 1).String(), signed(x.key, x.feed, epoch, 1, now.Add(2*time.Second), d))
	x.publish(wire.FeedName("testnet", x.feed, wire.KindHead, 0).String(), signed(x.key, x.feed, epoch, 1, now.Add(2*time.Second), &wire.Head{
		N: 1, TTL: time.Hour, GC: gc, Count: 1, Fingerprint: d.Fingerprint, Ring: ring, Pieces: &wire.Pieces{},
	}))
}

// robbed starts alice, whose key a thief has, and bob, who follows her.
func robbed(t *testing.T, withRoot bool) (alice, bob *testNode, x *thief) {
	t.Helper()
	b := mochiBroker(t)
	alice, bob = newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	x = &thief{attacker: newAttacker(t, b.url), t: t, key: alice.id.Signer(), feed: f}
	if !withRoot {
		alice.stop()
		if err := os.Remove(filepath.Join(alice.dir, "keys", "operator.key")); err != nil {
			t.Fatal(err)
		}
		alice.open()
	}
	alice.s.Publish([]ban.Topic{"sshd"})
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the first ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
	return alice, bob, x
}

func (n *testNode) statusOf(f ban.Feed) string { return n.status(f).Status }

func TestANodeWhoseKeyIsStolenMakesANewOneOnce(t *testing.T) {
	t.Parallel()
	alice, bob, x := robbed(t, true)
	old := x.feed
	x.says(alice.status(old).Epoch+1<<wire.EpochShift, "198.51.100.66")
	await(t, "a new key", func() bool { return alice.id.Node() != old.Node })
	next := alice.feed("sshd")
	await(t, "the note of it", func() bool {
		last, err := alice.s.Rekeyed()
		return err == nil && last != nil && last.Node == next.Node && time.Since(last.At).Abs() < time.Hour
	})
	await(t, "the claims of the new node, and none of the old", func() bool {
		return slices.Equal(bob.has(next), []string{"192.0.2.1"}) && len(bob.has(old)) == 0
	})
	if got := bob.statusOf(old); got != StatusRevoked && got != "" {
		t.Errorf("the feed of the stolen key is %s", got)
	}
	alice.say("sshd", "192.0.2.2")
	await(t, "a ban of the new node", func() bool { return len(bob.has(next)) == 2 })

	// Who steals the second key as well has access to the machine: only a
	// person can cure that.
	x.key, x.feed = alice.id.Signer(), next
	x.says(alice.status(next).Epoch+1<<wire.EpochShift, "198.51.100.67")
	await(t, "the alarm", func() bool { return alice.statusOf(next) == StatusCloned })
	await(t, "the mark", func() bool { return bob.statusOf(next) == StatusStolen })
	if alice.id.Node() != next.Node {
		t.Error("the node made a second new key by itself")
	}

	// And it waits for that person over a restart.
	alice.stop()
	alice.open()
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	await(t, "the silence after a restart", func() bool { return alice.statusOf(next) == StatusCloned })
}

func TestAStolenKeyWithoutTheRootKeyIsMarkedForEver(t *testing.T) {
	t.Parallel()
	alice, bob, x := robbed(t, false)
	f := x.feed
	x.says(alice.status(f).Epoch+1<<wire.EpochShift, "198.51.100.66")
	await(t, "the alarm", func() bool { return alice.statusOf(f) == StatusCloned })
	await(t, "the mark", func() bool { return bob.statusOf(f) == StatusStolen })
	x.says(bob.status(f).Epoch+9<<wire.EpochShift, "198.51.100.67")
	bob.stop()
	bob.open()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := bob.statusOf(f); got != StatusStolen {
		t.Errorf("after a restart the feed is %s", got)
	}
	bob.run()
	await(t, "the thief's messages", func() bool { return bob.s.Counts().Received > 2 })
	if slices.Contains(bob.has(f), "198.51.100.67") {
		t.Error("the thief is believed after the mark")
	}
}

// Two copies of one machine, both with the root key, must not revoke each other
// in turn: each becomes a node of its own under one card.
func TestTwoCopiesWithTheRootKeyEndAsTwoNodesUnderOneCard(t *testing.T) {
	t.Parallel()
	one, other := mochiBroker(t), mochiBroker(t)
	alice := newNode(t, "alice", one.url, other.url)
	old := alice.id.Node()
	alice.stop()
	twin := newNode(t, "twin", other.url, one.url)
	twin.stop()
	for _, dir := range []string{"keys"} {
		if err := os.RemoveAll(filepath.Join(twin.dir, dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(twin.dir, dir), os.DirFS(filepath.Join(alice.dir, dir))); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"operator.key", "node.key"} {
			if err := os.Chmod(filepath.Join(twin.dir, dir, name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A minute has to pass before a retained message is no forgotten one.
	start := time.Now()
	clock := func() time.Time { return start.Add(30 * time.Since(start)) }
	for _, n := range []*testNode{alice, twin} {
		n.clock = clock
		n.open()
		n.s.Publish([]ban.Topic{"sshd"})
		n.run()
		n.say("sshd", "192.0.2.1")
	}
	settled := func() bool {
		a, _ := alice.id.Card()
		b, _ := twin.id.Card()
		return a.Serial == b.Serial && a.Hash == b.Hash && alice.id.Node() != twin.id.Node() &&
			a.Certifies(alice.id.NodeKey(), clock()) == nil && a.Certifies(twin.id.NodeKey(), clock()) == nil
	}
	said := 0
	await(t, "two nodes under one card", func() bool { // both write until they have met
		said++
		for _, n := range []*testNode{alice, twin} {
			claim := ban.Claim{Target: ban.MustTarget("192.0.2.9"), End: clock().Add(time.Duration(2+said%1000) * time.Hour), Class: ban.ClassAuth}
			if err := n.s.Say("sshd", []ban.Claim{claim}, nil); err != nil {
				t.Fatal(err)
			}
		}
		return settled()
	})
	card, _ := alice.id.Card()
	if alice.id.Node() != old && twin.id.Node() != old {
		if _, revoked := card.RevokedSince(old); !revoked {
			t.Error("the key that both had is not revoked")
		}
	}
	for _, n := range []ban.Node{alice.id.Node(), twin.id.Node()} {
		if _, revoked := card.RevokedSince(n); revoked {
			t.Errorf("node %s is revoked", n)
		}
	}
}

// TestCardsOfTwoMachinesMerge: whatever two machines with one root key sign
// without having seen each other's cards, they end with one card that has all
// certificates and revocations.
func TestCardsOfTwoMachinesMerge(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	dir := t.TempDir()
	a, err := keys.Create(filepath.Join(dir, "a"), "alice", now)
	if err != nil {
		t.Fatal(err)
	}
	root, err := a.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	b := keys.New(filepath.Join(dir, "b"), testKey("b"), root)
	_, raw := a.Card()
	if err := b.InstallCard(raw); err != nil {
		t.Fatal(err)
	}
	revokedByA, revokedByB := ban.NodeOf([]byte("x")), ban.NodeOf([]byte("y"))
	if err := a.UpdateCard(now, func(c *wire.Card) { c.Revoke(revokedByA, now) }); err != nil {
		t.Fatal(err)
	}
	if err := b.UpdateCard(now, func(c *wire.Card) { c.Revoke(revokedByB, now) }); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		for _, pair := range [][2]*keys.Identity{{a, b}, {b, a}} {
			_, raw := pair[0].Card()
			_ = pair[1].InstallCard(raw) // an older one is refused
			if _, err := pair[1].Renew(now); err != nil {
				t.Fatal(err)
			}
		}
	}
	x, _ := a.Card()
	y, _ := b.Card()
	if x.Hash != y.Hash {
		t.Fatalf("two cards, %d and %d", x.Serial, y.Serial)
	}
	for _, n := range []ban.Node{revokedByA, revokedByB} {
		if _, ok := x.RevokedSince(n); !ok {
			t.Errorf("the revocation of %s is lost", n)
		}
	}
	for _, k := range []wire.PublicKey{a.NodeKey(), b.NodeKey()} {
		if err := x.Certifies(k, now); err != nil {
			t.Error(err)
		}
	}
}
