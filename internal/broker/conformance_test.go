package broker

import (
	"fmt"
	"strings"
	"testing"

	"banmesh/internal/broker/frame"
)

// Scenarios of MQTT 3.1.1 as interoperability suites ask them, against an open
// broker. Section numbers are those of the OASIS standard.

// away waits until a client's session has no connection.
func away(t testing.TB, b *Broker, id string) {
	t.Helper()
	eventually(t, id+" is away", func() bool {
		s := b.sessions.get(id)
		if s == nil {
			return true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.c == nil
	})
}

// leave disconnects as the standard asks, and waits until the broker knows.
func (c *client) leave(b *Broker, id string) {
	c.t.Helper()
	c.send(frame.Disconnect<<4, 0)
	c.wantClosed()
	away(c.t, b, id)
}

// stay connects with a session that outlives the connection.
func stay(t testing.TB, b *Broker, id string) (c *client, present bool) {
	t.Helper()
	c = dial(t, b)
	return c, c.connect(connecting{id: id, keepalive: 60})
}

// say publishes with any quality of service and finishes the exchange.
func (c *client) say(topic, payload string, id uint16, qos byte, retain bool) {
	c.t.Helper()
	c.send(publishBytes(topic, payload, id, qos, retain)...)
	switch qos {
	case 1:
		c.answer(frame.Puback)
	case 2:
		c.answer(frame.Pubrec)
		c.send(frame.Pubrel<<4|2, 2, byte(id>>8), byte(id))
		c.answer(frame.Pubcomp)
	}
}

// hear takes a publication of any quality of service to its end.
func (c *client) hear() (topic, payload string, qos byte) {
	c.t.Helper()
	topic, payload, p := c.message()
	if qos = p.flags >> 1 & 3; qos == 2 {
		id := p.body[2+len(topic) : 4+len(topic)]
		c.send(frame.Pubrec<<4, 2, id[0], id[1])
		if rel := c.answer(frame.Pubrel); rel.flags != 2 || string(rel.body) != string(id) {
			c.t.Errorf("PUBREL %x %x for %x", rel.flags, rel.body, id)
		}
		c.send(frame.Pubcomp<<4, 2, id[0], id[1])
	}
	return topic, payload, qos
}

// heard takes n publications and gives payloads with their quality of service.
func (c *client) heard(n int) map[string]byte {
	c.t.Helper()
	got := map[string]byte{}
	for range n {
		_, payload, qos := c.hear()
		got[payload] = qos
	}
	return got
}

func wantHeard(t testing.TB, got map[string]byte, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("heard %v, want %v", got, want)
	}
	for i, w := range want {
		if q, ok := got[w]; !ok || int(q) != i {
			t.Errorf("%q came with QoS %d (%v), want %d", w, q, ok, i)
		}
	}
}

var everyQoS = []string{"qos 0", "qos 1", "qos 2"} // by quality of service

func TestOneClientTalksToItselfInEveryQuality(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := join(t, b, "self")
	c.subscribe("TopicA", 2)
	for q, payload := range everyQoS {
		c.say("TopicA", payload, uint16(q+1), byte(q), false)
	}
	wantHeard(t, c.heard(3), everyQoS...)
	c.wantNothing()
}

func TestAWrongProtocolIsNotServed(t *testing.T) { // 3.1.2.1, 3.1.2.2
	b := open(t)
	good := connecting{id: "x", flags: frame.FlagClean, keepalive: 60}.bytes()
	name := append([]byte(nil), good...)
	name[4] = 'h'
	c := dial(t, b)
	c.send(name...)
	c.wantClosed()
	reserved := append([]byte(nil), good...)
	reserved[9] |= 1 // of the connect flags
	c = dial(t, b)
	c.send(reserved...)
	c.wantClosed()
	if got := dial(t, b).refusal(connecting{id: "x", flags: frame.FlagClean, level: 3}); got != frame.RefusedVersion {
		t.Errorf("level 3: CONNACK %d", got)
	}
}

func TestRetainedMessagesOfEveryQualityComeAndGo(t *testing.T) { // 3.3.1.3
	b := open(t)
	c := join(t, b, "c")
	topics := []string{"TopicA/B", "Topic/C", "TopicA/C"}
	for q, payload := range everyQoS {
		c.say(topics[q], payload, uint16(q+1), byte(q), true)
	}
	c.subscribe("+/+", 2)
	wantHeard(t, c.heard(3), everyQoS...)
	// The same filter again replaces the first, and retained messages come
	// again (3.8.4), no better than granted.
	if q := c.subscribe("+/+", 1); q != 1 {
		t.Errorf("granted %d", q)
	}
	got := c.heard(3)
	if got["qos 0"] != 0 || got["qos 1"] != 1 || got["qos 2"] != 1 {
		t.Errorf("heard %v", got)
	}
	c.leave(b, "c")
	c = join(t, b, "c")
	for q, topic := range topics {
		c.say(topic, "", uint16(q+1), byte(q), true)
	}
	c.subscribe("+/+", 2)
	c.wantNothing()
}

func TestMessagesWaitForAClientThatIsAway(t *testing.T) { // 3.1.2.4
	b := open(t)
	c, _ := stay(t, b, "kept")
	c.subscribe("+/+", 2)
	c.leave(b, "kept")
	pub := join(t, b, "pub")
	for q, payload := range everyQoS {
		pub.say("Topic/C", payload, uint16(q+1), byte(q), false)
	}
	c, present := stay(t, b, "kept")
	if !present {
		t.Fatal("there is no session")
	}
	got := c.heard(2)
	if got["qos 1"] != 1 || got["qos 2"] != 2 {
		t.Errorf("heard %v", got)
	}
	c.wantNothing()
	// A clean session ends the other for good.
	c.leave(b, "kept")
	join(t, b, "kept").leave(b, "kept")
	if _, present := stay(t, b, "kept"); present {
		t.Error("the old session came back")
	}
}

func TestAWillComesOnlyWhenTheClientIsLost(t *testing.T) { // 3.1.2.5
	b := open(t)
	sub := join(t, b, "sub")
	sub.subscribe("w/#", 2)
	dying := connecting{id: "dying", flags: frame.FlagClean | 2<<3, keepalive: 60, will: "w/lost"}
	c := dial(t, b)
	c.connect(dying)
	c.leave(b, "dying")
	sub.wantNothing()
	c = dial(t, b)
	c.connect(dying)
	c.nc.Close()
	if topic, payload, qos := sub.hear(); topic != "w/lost" || payload != "gone" || qos != 2 {
		t.Errorf("heard %s %q with QoS %d", topic, payload, qos)
	}
	// Taken over, the old connection is lost too.
	c = dial(t, b)
	c.connect(dying)
	join(t, b, "dying")
	if topic, _, _ := sub.hear(); topic != "w/lost" {
		t.Errorf("heard %s", topic)
	}
	// A retained will is there for who comes later.
	c = dial(t, b)
	c.connect(connecting{id: "dying", flags: frame.FlagClean | 1<<5, keepalive: 60, will: "w/kept"})
	c.nc.Close()
	sub.hear()
	late := join(t, b, "late")
	late.subscribe("w/kept", 0)
	if _, payload, _ := late.message(); payload != "gone" {
		t.Errorf("retained %q", payload)
	}
	sub.wantNothing()
}

func TestASilentClientIsLostAfterItsKeepalive(t *testing.T) { // 3.1.2.10
	b := open(t)
	sub := join(t, b, "sub")
	sub.subscribe("/TopicA", 2)
	c := dial(t, b)
	c.connect(connecting{id: "silent", flags: frame.FlagClean, keepalive: 1, will: "/TopicA"})
	if _, payload, _ := sub.message(); payload != "gone" {
		t.Errorf("heard %q", payload)
	}
	c.wantClosed()
}

func TestAnInterruptedExchangeIsFinishedAfterAReconnect(t *testing.T) { // 4.4
	b := open(t)
	c, _ := stay(t, b, "c")
	c.subscribe("TopicA/#", 2)
	// It publishes, to itself, and reads no answer before it leaves.
	c.send(publishBytes("TopicA/B", "one", 1, 1, false)...)
	c.send(publishBytes("TopicA/C", "two", 2, 2, false)...)
	c.leave(b, "c")
	c, present := stay(t, b, "c")
	if !present {
		t.Fatal("there is no session")
	}
	got := map[string]bool{}
	for len(got) < 2 {
		p, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		switch p.kind {
		case frame.Publish:
			pub, err := frame.ParsePublish(frame.Header{Type: frame.Publish, Flags: p.flags}, p.body)
			if err != nil {
				t.Fatal(err)
			}
			if p.flags&8 == 0 {
				t.Errorf("%q comes again without DUP", pub.Payload)
			}
			if pub.QoS == 1 {
				c.send(frame.AppendPuback(nil, pub.ID)...)
			} else {
				c.send(frame.Pubrec<<4, 2, byte(pub.ID>>8), byte(pub.ID))
			}
			got[string(pub.Payload)] = true
		case frame.Pubrec, frame.Pubrel:
		default:
			t.Fatalf("got packet %d", p.kind)
		}
	}
}

func TestWhatWasReceivedComesNoMore(t *testing.T) { // 4.3.3, the receiver is the client
	b := open(t)
	c, _ := stay(t, b, "c")
	c.subscribe("t", 2)
	pub := join(t, b, "pub")
	pub.say("t", "once", 1, 2, false)
	_, _, p := c.message()
	id := p.body[3:5]
	c.send(frame.Pubrec<<4, 2, id[0], id[1])
	c.want(frame.Pubrel)
	c.nc.Close() // before PUBCOMP
	away(t, b, "c")
	c, _ = stay(t, b, "c")
	if p := c.want(frame.Pubrel); p.flags&2 == 0 || string(p.body) != string(id) {
		t.Errorf("PUBREL %x %x, want it for %x", p.flags, p.body, id)
	}
	c.send(frame.Pubcomp<<4, 2, id[0], id[1])
	c.wantNothing()
}

func TestExactlyOnceOutlivesAConnection(t *testing.T) { // 4.3.3, the sender is the client
	b := open(t)
	sub := join(t, b, "sub")
	sub.subscribe("t", 2)
	c, _ := stay(t, b, "c")
	c.send(publishBytes("t", "once", 5, 2, false)...)
	c.want(frame.Pubrec)
	c.nc.Close() // before PUBREL
	away(t, b, "c")
	c, _ = stay(t, b, "c")
	again := publishBytes("t", "once", 5, 2, false)
	again[0] |= 8 // DUP
	c.send(again...)
	c.want(frame.Pubrec)
	c.send(frame.Pubrel<<4|2, 2, 0, 5)
	p, err := c.read()
	for ; err == nil && p.kind == frame.Pubrec; p, err = c.read() { // one for the reconnect, one for the publication
	}
	if err != nil || p.kind != frame.Pubcomp || string(p.body) != "\x00\x05" {
		t.Errorf("got packet %d %x, %v", p.kind, p.body, err)
	}
	if _, payload, _ := sub.hear(); payload != "once" {
		t.Errorf("heard %q", payload)
	}
	sub.wantNothing()
}

func TestOneSubscribeMayBeGrantedInPart(t *testing.T) { // 3.9.3
	b := start(t, Options{Open: true, Anonymous: AccessFull, DenyRead: []string{"nosubscribe"}})
	c := join(t, b, "c")
	var body []byte
	for _, f := range []struct {
		filter string
		qos    byte
	}{{"TopicA/#", 2}, {"nosubscribe", 1}, {"TopicA/+", 1}, {"$share/g/x", 1}} {
		body = append(append(body, text(f.filter)...), f.qos)
	}
	c.send(whole(0x82, append([]byte{1, 2}, body...)...)...)
	if got := c.want(frame.Suback).body; string(got) != "\x01\x02\x02\x80\x01\x80" {
		t.Errorf("SUBACK %x", got)
	}
	c.say("TopicA/C", "overlapping", 1, 2, false)
	if _, _, qos := c.hear(); qos != 2 {
		t.Errorf("heard with QoS %d", qos)
	}
	c.wantNothing()
}

func TestAnEndedSubscriptionIsSilent(t *testing.T) { // 3.10
	b := open(t)
	c, pub := join(t, b, "c"), join(t, b, "pub")
	c.subscribe("a/+", 1)
	c.subscribe("a/b", 1)
	unsubscribe := func(id byte, filter string) {
		t.Helper()
		c.send(whole(0xa2, append([]byte{0, id}, text(filter)...)...)...)
		if p := c.answer(frame.Unsuback); string(p.body) != string([]byte{0, id}) {
			t.Errorf("UNSUBACK %x", p.body)
		}
	}
	unsubscribe(9, "a/+")
	unsubscribe(10, "never/asked/for")
	pub.publish("a/b", "still", 1, false)
	if _, payload, _ := c.message(); payload != "still" {
		t.Errorf("heard %q", payload)
	}
	unsubscribe(11, "a/b")
	pub.publish("a/b", "no more", 2, false)
	c.wantNothing()
}

func TestTakingOverASessionKeepsIt(t *testing.T) { // 3.1.4
	b := open(t)
	first, _ := stay(t, b, "same")
	first.subscribe("t", 1)
	pub := join(t, b, "pub")
	for i := range 100 {
		if i == 50 {
			var present bool
			old := first
			if first, present = stay(t, b, "same"); !present {
				t.Fatal("the session was not taken over")
			}
			old.wantClosed()
		}
		pub.publish("t", fmt.Sprint(i), uint16(i+1), false)
	}
	got := map[string]bool{}
	for len(got) < 100 {
		_, payload, _ := first.message() // those below 50 a second time
		got[payload] = true
	}
	first.wantNothing()
}

func TestMessagesOfOnePublisherKeepTheirOrder(t *testing.T) { // 4.6
	b := open(t)
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	sub.subscribe("t", 2)
	const n = 300
	go func() {
		for i := range uint16(n) {
			pub.send(publishBytes("t", fmt.Sprint(i), i+1, 1, false)...)
		}
	}()
	for i := range uint16(n) {
		if _, payload, _ := sub.message(); payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, payload)
		}
		if p := pub.want(frame.Puback); frame.AckID(p.body) != i+1 {
			t.Fatalf("acknowledgement %d is for %d", i+1, frame.AckID(p.body))
		}
	}
}

func TestTheLongestTopicThatIsTakenWorks(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := join(t, b, "c")
	topic := strings.Repeat("é", maxFilter/2)
	c.subscribe(topic, 1)
	c.publish(topic, "m", 1, false)
	if got, _, _ := c.message(); got != topic {
		t.Errorf("heard on %q", got)
	}
	c.publish(topic+"x", "m", 2, false) // acknowledged and dropped
	c.wantNothing()
	if b.refusals(refusedTopic) != 1 {
		t.Error("not counted")
	}
}
