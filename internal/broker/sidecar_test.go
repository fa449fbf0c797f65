package broker

import (
	"context"
	"testing"
)

func TestASidecarCopiesWhatIsAdmittedAndNothingElse(t *testing.T) {
	ingress := open(t)
	network := open(t) // stands for any MQTT server
	a := newAuthor("alice")
	anybody := join(t, ingress, "anybody")
	headTopic, head := a.head(5)
	cardTopic, card := a.card(t, 1)
	// Before the sidecar comes: retained, the head perhaps ahead of its card.
	anybody.publish(headTopic, head, 1, true)
	anybody.publish(cardTopic, card, 2, true)
	anybody.publish("banmesh/1/net/garbage", "x", 3, true)
	s, err := NewSidecar(SidecarOptions{
		Network: "net",
		Ingress: Endpoint{URL: "tcp://" + ingress.Addr().String(), ClientID: "sidecar"},
		Target:  Endpoint{URL: "tcp://" + network.Addr().String(), ClientID: "sidecar"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	reader := join(t, network, "reader")
	reader.subscribe("#", 1)
	got := map[string]string{}
	for len(got) < 2 {
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
	// A network that comes back gets what it lacks.
	network.Kick("sidecar")
	_, last := a.head(7)
	anybody.publish(headTopic, last, 8, true)
	if _, payload, _ := reader.message(); payload != last {
		t.Error("copied something else after an interruption")
	}
	reader.wantNothing()
}
