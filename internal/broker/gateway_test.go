package broker

import (
	"context"
	"testing"
	"time"

	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/wire"
)

// copying runs a gateway between two addresses until the test ends.
func copying(t *testing.T, ingress, network string) {
	t.Helper()
	s, err := NewGateway(GatewayOptions{
		Network: "net",
		Ingress: mqttclient.Endpoint{URL: "tcp://" + ingress, ClientID: "gateway"},
		Target:  mqttclient.Endpoint{URL: "tcp://" + network, ClientID: "gateway"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAGatewayCopiesWhatIsAdmittedAndNothingElse(t *testing.T) {
	t.Parallel()
	ingress := open(t)
	network := open(t) // stands for any MQTT server
	a := newAuthor("alice")
	anybody := join(t, ingress, "anybody")
	headTopic, head := a.head(5)
	cardTopic, card := a.card(t, 1)
	// Before the gateway comes: retained, the head perhaps ahead of its card.
	anybody.publish(headTopic, head, 1, true)
	anybody.publish(cardTopic, card, 2, true)
	anybody.publish("banmesh/1/net/garbage", "x", 3, true)
	reader := join(t, network, "reader")
	reader.subscribe("#", 1)
	reader.wantNothing() // the search for retained messages is over: nothing comes twice
	copying(t, ingress.Addr().String(), network.Addr().String())
	got := map[string]string{}
	for range 2 {
		topic, payload, _ := reader.message()
		got[topic] = payload
	}
	if got[headTopic] != head || got[cardTopic] != card {
		t.Errorf("copied: %d", len(got))
	}
	// Afterwards: forgeries and old heads stay outside.
	_, old := a.head(4)
	forged := []byte(head)
	forged[3] ^= 1
	anybody.publish(headTopic, string(forged), 4, true)
	anybody.publish(headTopic, old, 5, true)
	anybody.publish(headTopic, "", 6, true)
	_, next := a.head(6)
	anybody.publish(headTopic, next, 7, true)
	if topic, payload, _ := reader.message(); topic != headTopic || payload != next {
		t.Errorf("copied something else: %s", topic)
	}
	// A revocation erases the node's messages in the network.
	_, revoking := a.card(t, 2, wire.Revocation{Node: a.feed.Node, Since: a.now.Add(-time.Minute)})
	anybody.publish(cardTopic, revoking, 8, true)
	if _, payload, _ := reader.message(); payload != revoking {
		t.Error("the revoking card was not copied")
	}
	if topic, payload, _ := reader.message(); topic != headTopic || payload != "" {
		t.Errorf("the revoked node's head was not erased: %s", topic)
	}
	reader.wantNothing()
}

func TestANetworkThatLostEverythingIsToldAgain(t *testing.T) {
	t.Parallel()
	ingress := open(t)
	a, e := newAuthor("alice"), newAuthor("eve")
	anybody := join(t, ingress, "anybody")
	cardTopic, card := a.card(t, 1)
	headTopic, head := a.head(5)
	anybody.publish(cardTopic, card, 1, true)
	anybody.publish(headTopic, head, 2, true)
	for i := range 300 { // more than are on their way at once
		topic, chunk := a.chunk(i, 1)
		anybody.publish(topic, chunk, 3, true)
	}
	eveCardTopic, eveCard := e.card(t, 1)
	eveTopic, eveHead := e.head(1)
	anybody.publish(eveCardTopic, eveCard, 4, true)
	anybody.publish(eveTopic, eveHead, 5, true)

	// The network's broker checks for itself: whoever comes before its card
	// would be refused there.
	o := Options{Network: "net", Anonymous: AccessFull, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}}
	first, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, first)
	address := first.Addr().String()
	copying(t, ingress.Addr().String(), address)
	eventually(t, "everything is there", func() bool { return first.store.Status().Messages == 304 })
	_, revoking := e.card(t, 2, wire.Revocation{Node: e.feed.Node, Since: e.now.Add(-time.Minute)})
	anybody.publish(eveCardTopic, revoking, 6, true)
	eventually(t, "the revocation is there", func() bool { return first.store.Status().Messages == 303 })
	stop()
	o.Listeners[0].Address = address
	second, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, second)()
	eventually(t, "everything is there again", func() bool { return second.store.Status().Messages == 303 })
	if m := second.store.Get(headTopic); m == nil || string(m.Payload) != head {
		t.Error("the head differs")
	}
}
