package broker

import (
	"reflect"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
)

func (c *client) refusal(n connecting) byte {
	c.t.Helper()
	c.send(n.bytes()...)
	code := c.want(frame.Connack).body[1]
	c.wantClosed()
	return code
}

func TestLoginsThatProveNothingAreRefused(t *testing.T) {
	t.Parallel()
	b := community(t)
	a, e := newAuthor("alice"), newAuthor("eve")
	good := a.connecting(a.now.Add(time.Minute), "broker.example")
	change := func(f func(*connecting)) connecting { n := good; f(&n); return n }
	for _, c := range []struct {
		name string
		n    connecting
		want byte
	}{
		{"no login", connecting{id: "x", flags: 2, keepalive: 60}, frame.RefusedAuthorized},
		{"another node's identifier", change(func(n *connecting) { n.id = e.feed.Node.String() }), frame.RefusedPassword},
		{"another operator's name", change(func(n *connecting) { n.user = e.feed.Operator.String() }), frame.RefusedPassword},
		{"a proof for another broker", a.connecting(a.now.Add(time.Minute), "other.example"), frame.RefusedPassword},
		{"an expired proof", a.connecting(a.now.Add(-time.Minute), "broker.example"), frame.RefusedPassword},
		{"a proof that is good for too long", a.connecting(a.now.Add(24*time.Hour), "broker.example"), frame.RefusedPassword},
		{"a will", change(func(n *connecting) { n.will = "x" }), frame.RefusedAuthorized},
		{"no keepalive", change(func(n *connecting) { n.keepalive = 0 }), frame.RefusedAuthorized},
		{"a keepalive of hours", change(func(n *connecting) { n.keepalive = 65535 }), frame.RefusedAuthorized},
		{"MQTT 5", change(func(n *connecting) { n.level = 5 }), frame.RefusedVersion5},
		{"MQTT 6", change(func(n *connecting) { n.level = 6 }), frame.RefusedVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := dial(t, b).refusal(c.n); got != c.want {
				t.Errorf("CONNACK %#x, want %#x", got, c.want)
			}
		})
	}
	dial(t, b).connect(good)

	// Whoever runs the broker sees the reason, and whose settings to look at.
	turned := b.Status().TurnedAway
	for why, want := range map[string]uint64{
		"no login": 1, "proof of key": 2, "proof of key for a broker of another name": 1, "proof of key of another time": 2, "will": 1, "keepalive": 2, "protocol version": 2,
	} {
		if turned[why] != want {
			t.Errorf("turned away for %q: %d, want %d of %v", why, turned[why], want, turned)
		}
	}
}

func TestASessionBelongsToItsIdentity(t *testing.T) {
	t.Parallel()
	hash, err := HashPassword("secret")
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, Options{Network: "net", Anonymous: AccessRead, Keys: true, Users: map[string]User{"bob": {hash, AccessFull}}})
	a := newAuthor("alice")
	squatter := join(t, b, a.feed.Node.String())
	bob := dial(t, b)
	bob.connect(connecting{id: "desk", user: "bob", password: "secret", flags: 2, keepalive: 60})
	if got := dial(t, b).refusal(connecting{id: "desk", flags: 2, keepalive: 60}); got != frame.RefusedIdentifier {
		t.Errorf("a stranger took the identifier: %d", got)
	}
	bob.wantNothing()
	a.join(t, b) // a node's identifier is its own, whoever was there first
	squatter.wantClosed()
	if got := dial(t, b).refusal(connecting{id: "desk2", user: "bob", password: "wrong", flags: 2, keepalive: 60}); got != frame.RefusedPassword {
		t.Errorf("a wrong password: %d", got)
	}
	// Anonymous clients may read here, not publish.
	reader := join(t, b, "reader")
	topic, card := a.card(t, 1)
	reader.refusedFor(b, refusedAccess, topic, card, true)
}

func TestAnotherIdentityInheritsNothing(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Keys: true})
	a := newAuthor("alice")
	first := dial(t, b)
	first.connect(connecting{id: a.feed.Node.String(), keepalive: 60}) // anonymous, wants a session
	first.subscribe("secret", 1)
	first.nc.Close()
	eventually(t, "it is away", func() bool {
		s := b.sessions.get(a.feed.Node.String())
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.c == nil
	})
	join(t, b, "pub").publish("secret", "queued", 1, false)
	n := a.connecting(a.now.Add(time.Minute), "any")
	n.flags = 0
	second := dial(t, b)
	if second.connect(n) {
		t.Error("there is a session")
	}
	second.wantNothing()
	if b.index.subscriptions() != 0 {
		t.Error("it inherited a subscription")
	}
}

func TestACommunityBrokerKeepsNoSessions(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	n := a.connecting(a.now.Add(time.Minute), "broker.example")
	n.flags = 0 // asks for a session
	for range 2 {
		c := dial(t, b)
		if c.connect(n) {
			t.Error("there is a session")
		}
		c.subscribe("banmesh/1/net/sshd/+/+/head", 1)
		c.nc.Close()
		eventually(t, "it is gone", func() bool { return b.sessions.len() == 0 && b.index.subscriptions() == 0 })
	}
}

func TestThereIsExactlyOneHook(t *testing.T) {
	t.Parallel()
	b := community(t)
	// The engine does not tell; reflection may look at the count.
	if n := reflect.ValueOf(b.engine).Elem().FieldByName("hooks").Elem().FieldByName("qty").Int(); n != 1 {
		t.Errorf("the engine has %d hooks, and takes any yes of one for a yes", n)
	}
}
