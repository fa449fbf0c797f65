package broker

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
)

func open(t testing.TB) *Broker {
	return start(t, Options{Open: true, Anonymous: AccessFull})
}

func TestAPublicationReachesWhoSubscribed(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	if q := sub.subscribe("a/+/c", 1); q != 1 {
		t.Fatalf("granted %#x", q)
	}
	for i := range uint16(3) {
		pub.publish("a/b/c", fmt.Sprint("m", i), i+1, false)
		topic, payload, p := sub.message()
		if topic != "a/b/c" || payload != fmt.Sprint("m", i) || p.flags != 2 {
			t.Errorf("got %s %s flags %x", topic, payload, p.flags)
		}
	}
	pub.send(publishBytes("a/b/d", "elsewhere", 9, 1, false)...)
	pub.want(frame.Puback)
	sub.wantNothing()
}

func TestRetainedMessagesFollowTheSuback(t *testing.T) {
	t.Parallel()
	b := open(t)
	pub := join(t, b, "pub")
	pub.publish("r/1", "one", 1, true)
	pub.publish("r/2", "two", 2, true)
	pub.publish("r/2", "", 3, true)
	sub := join(t, b, "sub")
	sub.subscribe("r/#", 1)
	topic, payload, p := sub.message()
	if topic != "r/1" || payload != "one" || p.flags&1 == 0 {
		t.Errorf("got %s %q flags %x", topic, payload, p.flags)
	}
	sub.wantNothing()
	pub.publish("r/1", "live", 4, true)
	if _, _, p := sub.message(); p.flags&1 != 0 {
		t.Error("a live publication has the retain flag")
	}
}

func TestASessionIsKeptInAnOpenBroker(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := dial(t, b)
	if c.connect(connecting{id: "kept", keepalive: 60}) {
		t.Fatal("there was a session already")
	}
	c.subscribe("q/+", 1)
	c.send(frame.Disconnect<<4, 0)
	c.wantClosed()
	eventually(t, "the client is away", func() bool { s := b.sessions.get("kept"); s.mu.Lock(); defer s.mu.Unlock(); return s.c == nil })
	pub := join(t, b, "pub")
	const n = 1000
	for i := range uint16(n) {
		pub.publish("q/x", fmt.Sprint(i), i+1, false)
	}
	c = dial(t, b)
	if !c.connect(connecting{id: "kept", keepalive: 60}) {
		t.Fatal("the session is gone")
	}
	for i := range n {
		if _, payload, _ := c.message(); payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, payload)
		}
	}
	c.wantNothing()
}

func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := dial(t, b)
	c.connect(connecting{id: "again", keepalive: 60})
	c.subscribe("q", 2)
	pub := join(t, b, "pub")
	pub.publish("q", "one", 1, false)
	c.want(frame.Publish)
	c.nc.Close()
	eventually(t, "the client is away", func() bool { s := b.sessions.get("again"); s.mu.Lock(); defer s.mu.Unlock(); return s.c == nil })
	c = dial(t, b)
	c.connect(connecting{id: "again", keepalive: 60})
	if _, payload, p := c.message(); payload != "one" || p.flags&8 == 0 {
		t.Errorf("got %q with flags %x", payload, p.flags)
	}
}

func TestQoS2ArrivesExactlyOnce(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	if q := sub.subscribe("x", 2); q != 2 {
		t.Fatalf("granted %d", q)
	}
	pub.send(publishBytes("x", "once", 5, 2, false)...)
	pub.want(frame.Pubrec)
	pub.send(publishBytes("x", "once", 5, 2, false)...) // again, before PUBREL
	pub.want(frame.Pubrec)
	pub.send(frame.Pubrel<<4|2, 2, 0, 5)
	pub.want(frame.Pubcomp)
	_, payload, p := sub.message()
	if payload != "once" || p.flags>>1&3 != 2 {
		t.Fatalf("got %q with flags %x", payload, p.flags)
	}
	id := p.body[3:5]
	sub.send(frame.Pubrec<<4, 2, id[0], id[1])
	sub.want(frame.Pubrel)
	sub.send(frame.Pubcomp<<4, 2, id[0], id[1])
	sub.wantNothing()
}

func TestAWillIsPublishedWhereOpen(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub := join(t, b, "sub")
	sub.subscribe("w", 1)
	c := dial(t, b)
	c.connect(connecting{id: "dying", flags: frame.FlagClean, keepalive: 60, will: "w"})
	c.nc.Close()
	if _, payload, _ := sub.message(); payload != "gone" {
		t.Errorf("the will is %q", payload)
	}
}

func TestOverlappingSubscriptionsDeliverOnceWithTheBestQuality(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	sub.subscribe("o/#", 0)
	sub.subscribe("o/+", 1)
	pub.publish("o/x", "m", 1, false)
	if _, _, p := sub.message(); p.flags != 2 {
		t.Errorf("flags %x", p.flags)
	}
	sub.wantNothing()
}

func TestTheNewConnectionTakesTheSessionOver(t *testing.T) {
	t.Parallel()
	b := open(t)
	first := join(t, b, "same")
	first.subscribe("t", 1)
	second := join(t, b, "same")
	first.wantClosed()
	pub := join(t, b, "pub")
	pub.publish("t", "m", 1, false)
	second.wantNothing() // a clean session has no subscriptions
	second.subscribe("t", 1)
	pub.publish("t", "n", 2, false)
	if _, payload, _ := second.message(); payload != "n" {
		t.Errorf("got %q", payload)
	}
}

func TestWildcardsDoNotMatchTopicsWithADollar(t *testing.T) {
	t.Parallel()
	b := open(t)
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	sub.subscribe("#", 1)
	sub.subscribe("+/x", 1)
	pub.publish("$SYS/x", "m", 1, false) // acknowledged, or it would come for ever
	pub.publish("$x/x", "m", 2, false)
	sub.wantNothing()
	sub.subscribe("$x/#", 1)
	pub.publish("$x/x", "named", 3, false)
	if _, payload, _ := sub.message(); payload != "named" {
		t.Errorf("got %q", payload)
	}
}

func TestAKeepaliveIsEnforced(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := dial(t, b)
	c.connect(connecting{id: "quiet", flags: frame.FlagClean, keepalive: 1})
	began := time.Now()
	c.wantClosed()
	if d := time.Since(began); d < time.Second || d > 10*time.Second {
		t.Errorf("closed after %v; the keepalive is 1 s", d)
	}
}

func TestMosquittosClientsPublishAndSubscribe(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto-clients is not installed")
	}
	b := open(t)
	addr := b.Addr().String()
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	for _, qos := range []string{"0", "1", "2"} {
		out, err := exec.Command("mosquitto_pub", "-p", port, "-q", qos, "-r", "-t", "m/"+qos, "-m", "hello "+qos).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_pub: %v\n%s", err, out)
		}
		subscribe := func() {
			out, err = exec.Command("mosquitto_sub", "-p", port, "-q", qos, "-t", "m/"+qos, "-C", "1", "-W", "10", "-F", "%r %q %p").CombinedOutput()
		}
		if subscribe(); qos == "0" && string(out) == "0 0 hello 0\n" {
			subscribe() // nobody acknowledges QoS 0: the publication was still on its way, and came live
		}
		if err != nil || string(out) != "1 "+qos+" hello "+qos+"\n" {
			t.Errorf("mosquitto_sub: %v\n%s", err, out)
		}
	}
}

func TestAFilterCanBeDenied(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, DenyRead: []string{"secret"}})
	c := join(t, b, "c")
	if q := c.subscribe("secret", 1); q != 0x80 {
		t.Errorf("granted %#x", q)
	}
}

func TestAnEmptyIdentifierNeedsACleanSession(t *testing.T) {
	t.Parallel()
	b := open(t)
	if got := dial(t, b).refusal(connecting{keepalive: 60}); got != frame.RefusedIdentifier {
		t.Errorf("CONNACK %d", got)
	}
	c := dial(t, b)
	c.connect(connecting{flags: frame.FlagClean})
	c.wantNothing()
}
