package broker

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/internal/wire"
)

// accepted says whether a client that sends bytes is answered by a packet of a
// kind and not cut.
func accepted(t *testing.T, b *Broker, first, then []byte, kind byte) bool {
	t.Helper()
	c := dial(t, b)
	c.send(first...)
	if p, err := c.receive(); err != nil || p.kind != frame.Connack || p.body[1] != 0 {
		return false
	}
	if then == nil {
		return true
	}
	if _, err := c.nc.Write(then); err != nil {
		return false
	}
	p, err := c.receive()
	return err == nil && p.kind == kind && (kind != frame.Suback || p.body[2] != 0x80)
}

func TestEveryLimitHoldsAtItsValueAndNotAboveIt(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{MaxConnect: 400, MaxPacket: 1000}})
	plain := connecting{id: "c", flags: frame.FlagClean, keepalive: 60}.bytes()
	// Each case gives bytes of a size, or of so many levels, and the largest.
	for name, c := range map[string]struct {
		most  int
		bytes func(n int) (first, then []byte)
		kind  byte
	}{
		"client identifier": {maxClientID, func(n int) ([]byte, []byte) {
			return connecting{id: strings.Repeat("x", n), flags: frame.FlagClean, keepalive: 60}.bytes(), nil
		}, 0},
		"CONNECT": {400, func(n int) ([]byte, []byte) {
			head := len(connecting{id: "c", user: "u", flags: frame.FlagClean, keepalive: 60}.bytes()) + 1 // two bytes of length
			return connecting{id: "c", user: strings.Repeat("u", n-head+1), flags: frame.FlagClean, keepalive: 60}.bytes(), nil
		}, 0},
		"packet": {1000, func(n int) ([]byte, []byte) {
			return plain, publishBytes("t", strings.Repeat("x", n-len(publishBytes("t", "", 1, 1, false))-1), 1, 1, false)
		}, frame.Puback},
		"levels of a filter": {maxLevels, func(n int) ([]byte, []byte) {
			return plain, whole(0x82, append([]byte{0, 1}, append(text(strings.Repeat("a/", n-1)+"a"), 1)...)...)
		}, frame.Suback},
		"bytes of a filter": {maxFilter, func(n int) ([]byte, []byte) {
			return plain, whole(0x82, append([]byte{0, 1}, append(text(strings.Repeat("a", n)), 1)...)...)
		}, frame.Suback},
	} {
		for _, n := range []int{c.most, c.most + 1} {
			first, then := c.bytes(n)
			if got := accepted(t, b, first, then, c.kind); got != (n == c.most) {
				t.Errorf("%s of %d, where %d is the limit: accepted %v", name, n, c.most, got)
			}
		}
	}
	join(t, b, "alive").wantNothing()
}

func TestKeepalivesAreLimited(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.MaxKeepalive = time.Minute })
	a := newAuthor("alice")
	for keepalive, want := range map[uint16]byte{60: frame.Accepted, 61: frame.RefusedAuthorized, 0: frame.RefusedAuthorized} {
		n := a.connecting(time.Now().Add(time.Minute), "broker.example")
		n.keepalive = keepalive
		c := dial(t, b)
		c.send(n.bytes()...)
		if p := c.want(frame.Connack); p.body[1] != want {
			t.Errorf("keepalive %d: CONNACK %d, want %d", keepalive, p.body[1], want)
		}
	}
}

// A broker whose limits were lowered starts with all that it has, and takes no
// more.
func TestABrokerStartsAboveItsLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newAuthor("alice")
	o := Options{Network: "net", Keys: true, StateDir: dir, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}, Limits: Limits{DrainTime: time.Millisecond}}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, b)
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	for i := range 4 {
		topic, chunk := a.chunk(i, 1)
		pub.publish(topic, chunk, 1, true)
	}
	stop()
	for name, lower := range map[string]func(*Limits){
		"total":    func(l *Limits) { l.TotalBytes = 1000 },
		"operator": func(l *Limits) { l.OperatorBytes, l.NewcomerBytes = 1000, 1000 },
		"node":     func(l *Limits) { l.FeedMessages = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			lower(&o.Limits)
			b, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer run(t, b)()
			if n := b.store.Status().Messages; n != 5 {
				t.Errorf("%d messages", n)
			}
			pub := a.join(t, b)
			topic, chunk := a.chunk(4, 1)
			pub.refusedFor(b, refusedQuota, topic, chunk, true)
			reader := newAuthor("reader").join(t, b)
			reader.subscribe("banmesh/1/net/sshd/+/+/chunk/+", 1)
			for range 4 {
				reader.message()
			}
		})
	}
}

// A filter is granted exactly when some topic of the protocol matches it: here
// those that come from a topic by putting wildcards in, and no others.
func FuzzOnlyFiltersThatATopicMatchesAreGranted(f *testing.F) {
	feed := newAuthor("alice").feed
	names := []wire.Name{
		{Network: "net", Kind: wire.KindCard, Operator: feed.Operator},
		{Network: "net", Kind: wire.KindDefinition, Topic: "sshd", Operator: feed.Operator},
		wire.FeedName("net", feed, wire.KindHead, 0),
		wire.FeedName("net", feed, wire.KindDelta, 8191),
	}
	for i := range names {
		f.Add(uint8(i), uint16(0), uint8(99), "")
		f.Add(uint8(i), uint16(0xffff), uint8(3), "+")
		f.Add(uint8(i), uint16(1<<4), uint8(5), "invented")
	}
	f.Fuzz(func(t *testing.T, which uint8, wild uint16, at uint8, instead string) {
		levels := strings.Split(names[int(which)%len(names)].String(), "/")
		for i := 2; i < len(levels); i++ {
			if wild&(1<<i) != 0 {
				levels[i] = "+"
			}
		}
		if !matchable(strings.Join(levels, "/")) {
			t.Fatalf("%s is refused", strings.Join(levels, "/"))
		}
		if int(at) >= len(levels) || strings.ContainsAny(instead, "+#/") {
			return
		}
		levels[at] = instead
		filter := strings.Join(levels, "/")
		if !matchable(filter) || strings.Contains(filter, "+") {
			return
		}
		if _, err := wire.ParseTopicName(filter); err != nil {
			t.Fatalf("%s is granted, and is no topic: %v", filter, err)
		}
	})
}
