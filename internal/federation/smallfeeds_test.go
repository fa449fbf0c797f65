package federation

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/wire"
)

// A community of operators with small feeds in every topic; make
// bench-federation has a thousand in ten.
var smallFeedOperators = flag.Int("operators", 30, "operators of the community of small feeds")

const (
	smallFeedTopics = 10
	smallFeedBans   = 40
)

// A counter is a relay that counts the bytes of a client.
type counter struct {
	address  string
	down, up atomic.Int64
	mu       sync.Mutex
	open     []net.Conn
}

func newCounter(t *testing.T, to string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &counter{address: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.open = append(c.open, in, out)
			c.mu.Unlock()
			go c.copy(out, in, &c.up)
			go c.copy(in, out, &c.down)
		}
	}()
	t.Cleanup(c.cut)
	return c
}

func (c *counter) copy(to, from net.Conn, n *atomic.Int64) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		n.Add(int64(k))
		if _, fault := to.Write(buf[:k]); err != nil || fault != nil {
			return
		}
	}
}

func (c *counter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.open {
		x.Close()
	}
	c.open = nil
}

// awaitQuiet waits until nothing was said for a while.
func (c *counter) awaitQuiet(t *testing.T) {
	t.Helper()
	last, since := int64(-1), time.Now()
	await(t, "quiet", func() bool {
		if n := c.down.Load() + c.up.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > lingerFor+500*time.Millisecond
	})
}

// A small operator has a node and a feed in each topic.
type smallOperator struct {
	id   ban.Operator
	node ed25519.PrivateKey
	card *wire.Card
}

// communityOf publishes the feeds of n operators at a broker.
func communityOf(t *testing.T, n int, address func([]ban.Operator) string) (url string, all []smallOperator, publish func(wire.Name, []byte, bool)) {
	t.Helper()
	now := time.Now()
	var ids []ban.Operator
	cards := make([][]byte, n)
	for i := range n {
		root, node := testKey(fmt.Sprint("root", i)), testKey(fmt.Sprint("node", i))
		card := wire.Card{Serial: 1, Issued: now.Add(-time.Hour), Certificates: []wire.Certificate{{Key: publicOf(node), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(80 * 24 * time.Hour)}}}
		raw, err := card.Sign(root)
		if err != nil {
			t.Fatal(err)
		}
		open, err := wire.OpenCard(raw)
		if err != nil {
			t.Fatal(err)
		}
		cards[i] = raw
		all = append(all, smallOperator{ban.OperatorOf(root[32:]), node, open})
		ids = append(ids, open.Operator)
	}
	url = "tcp://" + address(ids)
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("publisher").SetProtocolVersion(4))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	var tokens []mqtt.Token
	publish = func(n wire.Name, payload []byte, retain bool) {
		if tokens = append(tokens, c.Publish(n.String(), 1, retain, payload)); len(tokens) > 256 {
			tokens[0].Wait()
			tokens = tokens[1:]
		}
	}
	for i, o := range all {
		publish(cardName("testnet", o.id), cards[i], true)
		for k := range smallFeedTopics {
			head := o.head(k, 1, bansOf(smallFeedBans, now), now)
			publish(head.name, head.payload, true)
		}
	}
	for _, tok := range tokens {
		tok.Wait()
	}
	return url, all, publish
}

func topicOf(k int) ban.Topic { return ban.Topic(fmt.Sprintf("topic-%d", k)) }

func (o *smallOperator) feed(k int) ban.Feed {
	return ban.Feed{Topic: topicOf(k), Operator: o.id, Node: ban.NodeOf(o.node[32:])}
}

// head is the retained head of the operator's feed in a topic.
func (o *smallOperator) head(k int, n uint64, claims []ban.Claim, now time.Time) outgoing {
	entries := wire.SortClaims(claims, now)
	var s set
	for i := range entries {
		s.put(&entries[i])
	}
	h := &wire.Head{N: n, TTL: headTTL, GC: wire.Minutes(now), Count: uint32(s.count), Fingerprint: s.fingerprint(), CardSerial: o.card.Serial, CardHash: o.card.Hash, Ring: ring, Pieces: &wire.Pieces{}}
	s.expire(h.GC)
	name := wire.FeedName("testnet", o.feed(k), wire.KindHead, 0)
	bare := wire.Seal(o.node, wire.Header{Kind: wire.KindHead, Network: "testnet", Topic: name.Topic, Operator: o.id, Epoch: 1 << wire.EpochShift, Number: n, Issued: now}, h.Append(nil))
	return outgoing{name, wire.AppendState(bare, s.between("", ""))}
}

// Who follows a whole community of small feeds hears all of it by few filters,
// for 20 bytes a ban; who comes back hears the changes, for a hundredth of
// that. The figures at a thousand operators are printed by make bench-federation.
func TestACommunityOfSmallFeedsIsJoinedAndRejoined(t *testing.T) {
	t.Parallel()
	n := *smallFeedOperators
	url, all, publish := communityOf(t, n, func(ids []ban.Operator) string {
		b, err := broker.New(broker.Options{Network: "testnet", Listeners: []broker.Listener{{Kind: "tcp", Address: "127.0.0.1:0"}}, Anonymous: broker.AccessFull, Operators: ids, Limits: broker.Limits{PublishRate: 1e6, PublishBurst: 1e6, AddressRate: 1e6, AddressBurst: 1e6}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			<-done
		})
		return b.Addrs()[0].String()
	})
	relay := newCounter(t, url[len("tcp://"):])
	bob := newNode(t, "bob", "tcp://"+relay.address)
	var following []Following
	for _, o := range all {
		for k := range smallFeedTopics {
			following = append(following, Following{topicOf(k), o.id})
		}
	}
	bob.s.Follow(following)
	began := time.Now()
	bob.run()
	synced := func() (count int) {
		for _, f := range bob.s.Feeds() {
			if f.Status == StatusSynced {
				count++
			}
		}
		return count
	}
	feeds := n * smallFeedTopics
	await(t, "all feeds", func() bool { return synced() == feeds })
	took := time.Since(began)
	relay.awaitQuiet(t)
	down, up := relay.down.Load(), relay.up.Load()
	bob.s.mu.Lock()
	filters := len(bob.s.base)
	bob.s.mu.Unlock()
	bans := feeds * smallFeedBans
	perBan := float64(down) / float64(bans)
	if perBan > 20 {
		t.Errorf("%.1f bytes a ban, more than 20", perBan)
	}
	if filters > n*smallFeedTopics/8 && n >= 200 {
		t.Errorf("%d filters for %d feeds", filters, feeds)
	}

	// One feed changes while the reader is away.
	relay.down.Store(0)
	relay.up.Store(0)
	connections := bob.s.links[0].connection()
	relay.cut()
	changed := all[len(all)/2].head(3, 2, bansOf(smallFeedBans+1, time.Now()), time.Now())
	publish(changed.name, changed.payload, true)
	await(t, "the change", func() bool {
		return bob.s.links[0].connection() > connections && slices.ContainsFunc(bob.s.Feeds(), func(f FeedStatus) bool {
			return f.Feed == changed.name.Feed() && f.Claims == smallFeedBans+1
		})
	})
	relay.awaitQuiet(t)
	backDown, backUp := relay.down.Load(), relay.up.Load()
	if n >= 200 && float64(backDown) > 0.01*float64(down) {
		t.Errorf("coming back took %d bytes, more than a hundredth of the join's %d", backDown, down)
	}
	if backDown > down/4 {
		t.Errorf("coming back took %d bytes, the join %d", backDown, down)
	}
	for _, line := range []struct {
		name  string
		value float64
		unit  string
		aim   string
	}{
		{"community_filters", float64(filters), "filters", "<=1000"},
		{"community_join", took.Seconds(), "s", "<=10"},
		{"community_join_bytes", perBan, "B/ban", "<=20"},
		{"community_join_sent", float64(up) / 1024, "KiB", ""},
		{"community_return", 100 * float64(backDown) / float64(down), "%", "<1"},
		{"community_return_sent", float64(backUp) / 1024, "KiB", ""},
	} {
		fmt.Fprintf(t.Output(), "figure %s %.2f %s aim %s (%d operators x %d topics x %d bans)\n", line.name, line.value, line.unit, line.aim, n, smallFeedTopics, smallFeedBans)
	}
}
