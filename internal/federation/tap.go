package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

// A Tap listens to a network and says of each message why it is or is not
// believed, without believing anything itself.
type Tap struct {
	Network string
	Broker  Broker
	// Filters are MQTT topic filters. Brokers may refuse broad ones.
	Filters []string
	// Trusted says whom this node trusts; nil trusts nobody.
	Trusted func(ban.Operator) (name string, ok bool)
	// Cards are known beforehand, beside those that the broker delivers.
	Cards []*wire.Card
	Now   func() time.Time
	Log   *slog.Logger
	// Heard is called with every message, one at a time.
	Heard func(Tapped)
}

// Tapped is a message as a [Tap] judges it.
type Tapped struct {
	At       time.Time         `json:"at"`
	MQTT     string            `json:"mqtt"` // the topic
	Bytes    int               `json:"bytes"`
	Retained bool              `json:"retained"`
	Believed bool              `json:"believed"`
	Why      string            `json:"why"`            // a sentence
	Name     string            `json:"name,omitempty"` // of the operator, as this node knows it
	Message  *wire.Description `json:"message,omitempty"`
}

// TapFilters gives the filters for all that an operator publishes in a topic; ""
// stands for every topic and the zero operator for everybody.
func TapFilters(network string, topic ban.Topic, o ban.Operator) []string {
	t, who := string(topic), o.String()
	if topic == "" {
		t = "+"
	}
	if o == (ban.Operator{}) {
		who = "+"
	}
	base := wire.Prefix + network + "/"
	out := []string{base + wire.OperatorsLevel + "/" + who + "/card", base + wire.OperatorsLevel + "/" + who + "/trust", base + wire.OperatorsLevel + "/" + who + "/topics/+"}
	for _, k := range []string{"head", "delta/+", "segment/+", "chunk/+", "manifest", "dispute"} {
		out = append(out, base+t+"/"+who+"/+/"+k)
	}
	return out
}

// Run listens until ctx ends.
func (t *Tap) Run(ctx context.Context) error {
	id, err := keys.Throwaway(t.Now())
	if err != nil {
		return err
	}
	l, err := newLink(0, t.Broker)
	if err != nil {
		return err
	}
	in, up := make(chan packet, inMost), make(chan *link, 1)
	l.login, l.now, l.log, l.in, l.up = id.Login, t.Now, t.Log, in, up
	// Cards first: without its operator's card nothing of a node is believed.
	cards, all := listening{}, listening{}
	for _, f := range t.Filters {
		all.always(f, ring)
		if strings.HasSuffix(f, "/card") {
			cards.always(f, ring)
		}
	}
	l.want(cards, 1, nil)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { l.run(ctx) })
	j := judge{tap: t, cards: map[ban.Operator]*wire.Card{}, heads: map[ban.Feed]wire.Header{}}
	for _, c := range t.Cards {
		j.cards[c.Operator] = c
	}
	var timer <-chan time.Time
	for {
		select {
		case p := <-in:
			t.Heard(j.judge(p))
		case <-up:
			// Those that the broker retains come right after its answer.
			timer = time.After(subscribeWait)
		case <-timer:
			l.want(all, 2, nil)
		case <-ctx.Done():
			return nil
		}
	}
}

// judge remembers as much as a reader would.
type judge struct {
	tap   *Tap
	cards map[ban.Operator]*wire.Card
	heads map[ban.Feed]wire.Header
}

func (j *judge) judge(p packet) Tapped {
	now := j.tap.Now()
	out := Tapped{At: now, MQTT: p.topic, Bytes: len(p.payload), Retained: p.retained}
	n, err := wire.ParseTopicName(p.topic)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	trusted := false
	if j.tap.Trusted != nil {
		out.Name, trusted = j.tap.Trusted(n.Operator)
	}
	if n.Kind == wire.KindLive {
		if n, err = wire.OfLive(n, p.payload); err != nil {
			out.Why = err.Error()
			return out
		}
	}
	if len(p.payload) == 0 {
		out.Why = "it is empty: somebody erased what was retained here; that says nothing about the feed"
		return out
	}
	m, err := wire.Open(n, p.payload)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	d := m.Describe()
	out.Message = &d
	switch err := j.doubt(m, now); {
	case err != nil:
		out.Why = err.Error()
	case n.Kind == wire.KindCard:
		out.Believed, out.Why = true, "the operator's root key signed it; that it is trusted is another matter"
	case !trusted:
		out.Why = "well signed and certified, but this node does not trust the operator"
	default:
		out.Believed, out.Why = true, fmt.Sprintf("signed by a node that %s certifies", out.Name)
	}
	return out
}

// doubt gives the reason for which a reader would refuse the message.
func (j *judge) doubt(m *wire.Message, now time.Time) error {
	h := m.Header
	if h.Ahead(now) {
		return fmt.Errorf("%w: %s", wire.ErrFuture, h.Issued.Format(time.RFC3339))
	}
	if c, ok := m.Body.(*wire.Card); ok {
		if old := j.cards[c.Operator]; old != nil && old.Serial > c.Serial {
			return fmt.Errorf("it is older than the operator's card %d", old.Serial)
		}
		j.cards[c.Operator] = c
		return nil
	}
	if !h.Kind.OfNode() {
		return nil
	}
	c := j.cards[h.Operator]
	if c == nil {
		return errors.New("no card of the operator has been seen, so nothing says that the node speaks for it")
	}
	if err := c.Certifies(h.Signer, h.Issued); err != nil {
		return err
	}
	if h.Kind != wire.KindHead {
		return nil
	}
	f := m.Name.Feed()
	if old, ok := j.heads[f]; ok && (h.Epoch < old.Epoch || h.Epoch == old.Epoch && h.Number < old.Number) {
		return fmt.Errorf("a replay: head %d of epoch %d was seen", old.Number, old.Epoch)
	}
	j.heads[f] = h
	return nil
}
