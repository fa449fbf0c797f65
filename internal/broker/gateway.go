package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// GatewayOptions say which messages a gateway copies, and between which brokers.
type GatewayOptions struct {
	// Ingress is an open broker, to which anybody may publish.
	Ingress mqttclient.Endpoint
	// Target is the network's broker, to which the gateway alone may publish.
	Target mqttclient.Endpoint
	// Network is the network; required.
	Network string
	// Operators, if any are named, are the only ones that are copied.
	Operators []ban.Operator
	Limits    Limits
	Log       *slog.Logger
	Registry  *prometheus.Registry
	// Version is the program's, for its metrics.
	Version string
	Now     func() time.Time
}

// A Gateway copies the messages that are admitted from an open ingress to the network's
// broker. That broker can then be any MQTT server that lets readers read and
// the gateway write: admission is here.
type Gateway struct {
	options   GatewayOptions
	admission *admission
	log       *slog.Logger
	now       func() time.Time
	copied    prometheus.Counter
	refused   *prometheus.CounterVec

	// waiting are messages whose operator's card has not come yet.
	waiting map[ban.Operator]map[string][]byte
	held    int // of waiting, in bytes
	// revoked are topics that a card voided, up to maxRevoked.
	revoked map[string]struct{}
}

// maxHeld bounds messages that wait for a card.
const maxHeld = 64 << 20

// maxRevoked bounds the topics that are erased again in a network that comes
// back. Readers do not believe revoked nodes either way.
const maxRevoked = 1 << 16

// Back-off of a gateway between attempts: the first, and the longest. Half of
// it is chance, so that many do not come back together.
const (
	backOffFirst = time.Second
	backOffMost  = time.Minute
)

// NewGateway checks the options; it starts nothing.
func NewGateway(o GatewayOptions) (*Gateway, error) {
	if err := wire.CheckNetwork(o.Network); err != nil {
		return nil, fmt.Errorf("the network's name: %w", err)
	}
	for name, e := range map[string]mqttclient.Endpoint{"ingress": o.Ingress, "network's broker": o.Target} {
		if err := e.Check(); err != nil {
			return nil, fmt.Errorf("the URL of the %s: %w", name, err)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	store, err := retained.Open("", owner, o.Log)
	if err != nil {
		return nil, err
	}
	none, err := openBanList("")
	if err != nil {
		return nil, err
	}
	s := &Gateway{
		options: o, log: o.Log, now: o.Now, waiting: map[ban.Operator]map[string][]byte{}, revoked: map[string]struct{}{},
		admission: newAdmission(o.Network, o.Operators, o.Limits.defaults(), store, none),
		copied: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "banmesh_admit", Name: "copied_total", Help: "Messages that were admitted and copied.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "banmesh_admit", Name: "refused_total", Help: "Messages that were refused, by reason.",
		}, []string{"reason"}),
	}
	o.Registry.MustRegister(s.copied, s.refused)
	return s, nil
}

// Metrics gives the handler of the gateway's metrics.
func (s *Gateway) Metrics() http.Handler {
	return serveMetrics(s.options.Registry, s.options.Version)
}

// Run copies until ctx ends. Brokers that are away are normal: it tries again,
// and an ingress that comes back sends its retained messages, so nothing is missed.
func (s *Gateway) Run(ctx context.Context) error {
	delay := backOffFirst
	for ctx.Err() == nil {
		began := s.now()
		err := s.copy(ctx)
		if ctx.Err() != nil {
			break
		}
		if s.now().Sub(began) > backOffMost {
			delay = backOffFirst
		}
		s.log.Warn("copying was interrupted", "error", err, "again_in", delay)
		t := time.NewTimer(delay/2 + rand.N(delay/2))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		delay = min(2*delay, backOffMost)
	}
	return nil
}

// copyWindow is how many messages are on their way to the network at once: a
// network that is far away acknowledges late.
const copyWindow = 256

// A forwarder writes to the network's broker.
type forwarder struct {
	to     *mqttclient.Conn
	id     uint16
	window chan struct{} // holds a place for each publication that is not acknowledged
	ended  <-chan struct{}
}

var errTarget = errors.New("the network's broker closed the connection")

// send forwards a message; without a payload it erases.
func (f *forwarder) send(m *retained.Message) error {
	select {
	case f.window <- struct{}{}:
	case <-f.ended:
		return errTarget
	}
	if f.id++; f.id == 0 {
		f.id = 1
	}
	b, at := frame.AppendPublish(nil, m.Topic, m.Payload, 1, !strings.HasSuffix(m.Topic, "/"+wire.KindLive.String()))
	b[at], b[at+1] = byte(f.id>>8), byte(f.id)
	return f.to.Send(b)
}

// acknowledged reads acknowledgements until the connection ends.
func (f *forwarder) acknowledged() {
	for {
		first, body, err := f.to.Await()
		if err != nil {
			return
		}
		if first == frame.Puback<<4 && len(body) == 2 {
			select {
			case <-f.window:
			default: // one too many
			}
		}
	}
}

// copy connects both ends and copies until one of them fails. A network that
// comes back is told everything again: it may have lost all of it, and publications that
// it did not acknowledge may never have come.
func (s *Gateway) copy(ctx context.Context) error {
	target, err := mqttclient.Dial(ctx, s.options.Target)
	if err != nil {
		return fmt.Errorf("connecting to the network: %w", err)
	}
	defer target.Close()
	ingress, err := mqttclient.Dial(ctx, s.options.Ingress)
	if err != nil {
		return fmt.Errorf("connecting to the ingress: %w", err)
	}
	defer ingress.Close()
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	f := &forwarder{to: target, window: make(chan struct{}, copyWindow), ended: ctx.Done()}
	helpers.Go(func() { ingress.KeepAlive(ctx) })
	helpers.Go(func() { target.KeepAlive(ctx) })
	helpers.Go(func() {
		defer cancel()
		f.acknowledged()
	})
	if err := s.repeat(f.send); err != nil {
		return fmt.Errorf("repeating to the network what it was told: %w", err)
	}
	if err := ingress.Request(wire.Prefix+s.options.Network+"/#", 1); err != nil {
		return err
	}
	s.log.Info("copying", "network", s.options.Network)
	for {
		first, body, err := ingress.Await()
		if err != nil {
			return fmt.Errorf("reading from the ingress: %w", err)
		}
		h := frame.Header{Type: first >> 4, Flags: first & 15}
		switch h.Type {
		case frame.Suback:
			if len(body) != 3 || body[2] > 2 {
				return errors.New("the ingress does not let us subscribe")
			}
		case frame.Publish:
			p, err := frame.ParsePublish(h, body)
			if err != nil {
				return err
			}
			if err := s.judge(string(p.Topic), p.Payload, f.send); err != nil {
				return err
			}
			if p.QoS == 1 {
				if err := ingress.Send(frame.AppendPuback(nil, p.ID)); err != nil {
					return err
				}
			}
		}
	}
}

// repeat forwards all that was admitted, cards first, and erases the revoked messages.
func (s *Gateway) repeat(forward func(*retained.Message) error) error {
	all := s.admission.store.All()
	card := func(m *retained.Message) int {
		if name, err := wire.ParseTopicName(m.Topic); err == nil && name.Kind == wire.KindCard {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b *retained.Message) int { return card(a) - card(b) })
	for topic := range s.revoked {
		all = append(all, &retained.Message{Topic: topic})
	}
	for _, m := range all {
		if err := forward(m); err != nil {
			return err
		}
	}
	return nil
}

// judge admits a message or not, remembers it, and forwards it.
func (s *Gateway) judge(topic string, payload []byte, forward func(*retained.Message) error) error {
	who := identity{method: "user", access: AccessFull}
	name, err := wire.ParseTopicName(topic)
	live := err == nil && name.Kind == wire.KindLive
	r, why := s.admission.admit(who, topic, payload, 1, !live, s.now())
	switch {
	case why == refusedCertificate && !live:
		s.hold(topic, payload)
		return nil
	case why != admitted:
		s.refused.WithLabelValues(string(why)).Inc()
		return nil
	case r.same:
		return nil
	case r.live:
		s.copied.Inc()
		if err := forward(r.message); err != nil {
			return fmt.Errorf("forwarding: %w", err)
		}
		return nil
	}
	// All that is remembered comes before anything that can fail: a message that
	// is retained already is not judged again.
	out := []*retained.Message{r.message}
	_, _, why = s.admission.keep(r, func(topic string) {
		if len(s.revoked) < maxRevoked {
			s.revoked[topic] = struct{}{}
		}
		out = append(out, &retained.Message{Topic: topic}) // erases it there
	})
	if why != admitted {
		s.refused.WithLabelValues(string(why)).Inc()
		return nil
	}
	delete(s.revoked, topic)
	s.copied.Inc()
	for _, m := range out {
		if err := forward(m); err != nil {
			return fmt.Errorf("forwarding: %w", err)
		}
	}
	if r.card == nil {
		return nil
	}
	return s.release(r.card.Operator, forward)
}

// hold keeps a message until its operator's card comes.
func (s *Gateway) hold(topic string, payload []byte) {
	name, err := wire.ParseTopicName(topic)
	if err != nil || s.held+len(payload) > maxHeld {
		s.refused.WithLabelValues(string(refusedCertificate)).Inc()
		return
	}
	of := s.waiting[name.Operator]
	if of == nil {
		of = map[string][]byte{}
		s.waiting[name.Operator] = of
	}
	s.held += len(payload) - len(of[topic])
	of[topic] = payload
}

// release judges the messages that waited for a card again.
func (s *Gateway) release(o ban.Operator, forward func(*retained.Message) error) error {
	of := s.waiting[o]
	delete(s.waiting, o)
	for _, payload := range of {
		s.held -= len(payload)
	}
	for topic, payload := range of {
		if err := s.judge(topic, payload, forward); err != nil {
			return err
		}
	}
	return nil
}
