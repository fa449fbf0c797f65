package broker

import (
	"errors"
	"slices"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"banmesh/internal/broker/frame"
	"banmesh/internal/wire"
)

// A hook is the one hook of the engine. The engine asks its hooks one after
// the other and takes any yes for a yes, so there must be no second.
//
// The engine keeps sessions and speaks the protocol. Who subscribed where,
// which messages are retained and who receives a publication is the broker's own: the
// engine sees one stand-in subscription a client, nothing retained, and no
// publication to hand out.
type hook struct {
	mqtt.HookBase
	b *Broker
}

// standIn is the filter that the engine sees in place of one that was granted;
// refused is one that it refuses.
const (
	standIn = "granted"
	refused = ""
)

func (h *hook) ID() string { return "broker" }

func (h *hook) Provides(what byte) bool {
	switch what {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished,
		mqtt.OnSubscribe, mqtt.OnPacketProcessed, mqtt.OnUnsubscribe, mqtt.OnPublish, mqtt.OnWill, mqtt.OnDisconnect, mqtt.OnClientExpired:
		return true
	}
	return false
}

var errForeign = errors.New("a connection that did not pass the guard")

// guarded gives the guard of a client's connection, or nil.
func guarded(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnConnect lets in only connections that the guard has logged in.
func (h *hook) OnConnect(cl *mqtt.Client, _ packets.Packet) error {
	if c := guarded(cl); c == nil || c.who.method == "" {
		return errForeign
	}
	return nil
}

// OnConnectAuthenticate repeats the answer of the login.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	c := guarded(cl)
	return c != nil && c.who.method != ""
}

// OnACLCheck allows the stand-in for a granted filter, and lets publications
// go on to OnPublish, which acknowledges those that it refuses.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	return guarded(cl) != nil && (write || topic == standIn)
}

func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	c := guarded(cl)
	h.b.count.logins.WithLabelValues(c.who.method).Inc() // before the client hears that it is in
	if old := h.b.sessions.get(cl.ID); old != nil && old.who != c.who {
		h.b.evict(cl.ID)
	}
	c.session = h.b.sessions.begin(c, cl, pk.Connect.Clean)
	c.announced.Store(c.session)
	if will := cl.Properties.Will; will.Flag != 0 {
		c.will = &will
	}
}

// evict takes a client out of the engine with all that is pending for it, so that
// another identity inherits nothing.
func (b *Broker) evict(id string) {
	if old, ok := b.engine.Clients.Get(id); ok {
		old.Stop(errKicked)
		b.engine.UnsubscribeClient(old)
		old.ClearInflights()
		b.engine.Clients.Delete(id)
	}
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := guarded(cl)
	c.session.established(c, cl)
}

// OnSubscribe decides on filters, and gives the engine stand-ins, so that its
// answer to the client is ours.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := guarded(cl)
	if c == nil || c.session == nil {
		return pk
	}
	h.b.charge(c, 1+float64(len(pk.Filters))/filterPrice, h.b.now())
	out := make(packets.Subscriptions, len(pk.Filters))
	for i, f := range pk.Filters {
		qos := min(f.Qos, h.b.maxQoS)
		out[i] = packets.Subscription{Filter: refused}
		if h.b.subscribe(c, f.Filter, qos) {
			out[i] = packets.Subscription{Filter: standIn, Qos: qos}
		}
	}
	pk.Filters = out
	return pk
}

// OnPacketProcessed follows a SUBACK with the retained messages.
func (h *hook) OnPacketProcessed(cl *mqtt.Client, pk packets.Packet, err error) {
	if pk.FixedHeader.Type != packets.Subscribe || err != nil {
		return
	}
	if c := guarded(cl); c != nil && c.session != nil {
		all := 0
		for _, f := range pk.Filters {
			if f.Filter == wire.RefusalTopic && c.session.taken >= takenTold {
				h.b.notice(c, wire.Refusal{Reason: wire.RefusedTaken, Topic: wire.RefusalTopic, Count: c.session.taken})
			}
			if network, ok := h.b.servesIndex(f.Filter); ok {
				if !h.b.sendIndex(c, network) {
					c.kick("asks for too much")
					return
				}
				continue
			}
			visited, ok := h.b.queueRetained(c, f.Filter)
			if all += visited; !ok || all > h.b.limits.MaxSearch {
				c.kick("asks for too much")
				return
			}
		}
	}
}

func (h *hook) OnUnsubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := guarded(cl)
	if c == nil || c.session == nil {
		return pk
	}
	s := c.session
	out := make(packets.Subscriptions, len(pk.Filters))
	for i, f := range pk.Filters {
		out[i] = packets.Subscription{Filter: "none"}
		s.subsMu.Lock()
		bytes := int(s.subs[f.Filter].bytes)
		delete(s.subs, f.Filter)
		s.subsMu.Unlock()
		h.b.releaseFilter(s, bytes)
		h.b.index.unsubscribe(s, f.Filter)
	}
	pk.Filters = out
	return pk
}

// OnPublish takes publications that still come to the engine out of its hands: it neither
// retains nor delivers. With QoS 1 it does not acknowledge either, because
// that waits for the disk; [Broker.publish] does.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := guarded(cl)
	if c == nil || c.session == nil {
		return pk, packets.CodeSuccessIgnore
	}
	qos := pk.FixedHeader.Qos
	h.b.publish(c, pk.TopicName, pk.Payload, pk.PacketID, qos, pk.FixedHeader.Retain)
	if qos == 1 {
		return pk, packets.ErrRejectPacket
	}
	return pk, packets.CodeSuccessIgnore
}

// OnWill publishes a client's will as any other publication of it, and gives
// the engine one that reaches nobody.
func (h *hook) OnWill(cl *mqtt.Client, will mqtt.Will) (mqtt.Will, error) {
	c := guarded(cl)
	if c != nil {
		c.will = nil
	}
	if c != nil && h.b.options.Open && !strings.HasPrefix(will.TopicName, "$") && !strings.ContainsAny(will.TopicName, "+#") {
		h.b.take(c, will.TopicName, will.Payload, min(will.Qos, h.b.maxQoS), will.Retain)
	}
	return mqtt.Will{}, nil
}

// OnDisconnect publishes the will of a client that was taken over before the
// engine read anything of it: the engine takes that for a client that left in
// order, and forgets the will.
func (h *hook) OnDisconnect(cl *mqtt.Client, err error, _ bool) {
	c := guarded(cl)
	if c == nil || c.will == nil {
		return
	}
	will := *c.will
	if cause := cl.StopCause(); err == nil && cause != nil && !errors.Is(cause, packets.CodeDisconnect) {
		_, _ = h.OnWill(cl, will)
	}
}

func (h *hook) OnClientExpired(cl *mqtt.Client) {
	h.b.sessions.expire(h.b, cl)
	cl.ClearInflights()
	h.b.engine.UnsubscribeClient(cl)
}

// subscribe grants a filter or not.
func (b *Broker) subscribe(c *conn, filter string, qos byte) bool {
	s := c.session
	if why := b.mayRead(c, filter); why != "" {
		b.count.unsubscribed.WithLabelValues(why).Inc()
		return false
	}
	s.subsMu.Lock()
	defer s.subsMu.Unlock()
	sub, had := s.subs[filter]
	if !had {
		if len(s.subs) >= b.limits.Subscriptions {
			b.count.unsubscribed.WithLabelValues("quota").Inc()
			return false
		}
		sub.bytes = filterBytes
		if !b.holdFilter(s, int(sub.bytes)) {
			b.count.unsubscribed.WithLabelValues("memory").Inc()
			return false
		}
	}
	sub.qos = qos
	filter, added := b.index.subscribe(s, filter, qos)
	if added > 0 {
		if !b.holdFilter(s, added) {
			b.index.unsubscribe(s, filter)
			b.releaseFilter(s, int(sub.bytes))
			delete(s.subs, filter)
			b.count.unsubscribed.WithLabelValues("memory").Inc()
			return false
		}
		sub.bytes += int32(added)
	}
	s.subs[filter] = sub
	c.useful.Store(true)
	return true
}

// mayRead says why a client may not read a filter, or "".
func (b *Broker) mayRead(c *conn, filter string) string {
	switch {
	case c.who.access < AccessRead:
		return "access"
	case slices.Contains(b.options.DenyRead, filter):
		return "denied"
	case len(filter) > maxFilter || strings.Count(filter, "/") >= maxLevels:
		return "too deep"
	case frame.CheckFilter([]byte(filter)) != nil:
		return "malformed"
	case b.options.Open:
		if strings.HasPrefix(filter, "$share/") {
			return "shared"
		}
		return ""
	case filter == wire.RefusalTopic:
		return ""
	case strings.HasPrefix(filter, wire.IndexPrefix):
		if _, ok := b.servesIndex(filter); !ok {
			return "other network"
		}
		return ""
	case !strings.HasPrefix(filter, b.prefix):
		return "other network"
	case strings.HasSuffix(filter, "#"):
		return "multi-level wildcard"
	case !matchable(filter):
		return "no topic matches"
	}
	return ""
}

// queueRetained queues the messages that are retained under a filter that it was
// granted. It is false where the client asks for more than it may: a search is
// paid for by the levels of topics that it visits, found or not.
func (b *Broker) queueRetained(c *conn, filter string) (visited int, ok bool) {
	c.session.subsMu.Lock()
	sub, granted := c.session.subs[filter]
	qos := sub.qos
	c.session.subsMu.Unlock()
	if !granted {
		return 0, true
	}
	found, visited := b.store.Search(filter)
	if len(found) > 0 && !c.out.queueRetained(found, qos) {
		return visited, false
	}
	return visited, visited < searchPrice || b.charge(c, float64(visited)/searchPrice, b.now())
}
