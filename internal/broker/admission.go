package broker

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// A refusal is why a publication was not admitted; "" means that it was. The
// set is closed: it labels a counter.
type refusal string

const (
	admitted           refusal = ""
	refusedAccess      refusal = "access"      // the client may only read, or publishes for another node
	refusedTopic       refusal = "topic"       // no topic of the protocol, or of another network
	refusedOperator    refusal = "operator"    // not on the allow list, or banned
	refusedRetain      refusal = "retain"      // messages of the protocol are retained
	refusedEmpty       refusal = "empty"       // an empty retained message would erase, unsigned
	refusedSize        refusal = "size"        // larger than the kind allows
	refusedPlacement   refusal = "placement"   // it belongs to another topic
	refusedStale       refusal = "stale"       // older than what is retained
	refusedFuture      refusal = "future"      // dated in the future
	refusedCertificate refusal = "certificate" // the operator does not certify the node
	refusedSignature   refusal = "signature"
	refusedFormat      refusal = "format"
	refusedQuota       refusal = "quota" // the node's, or the whole broker's
	refusedRate        refusal = "rate"
	refusedBusy        refusal = "busy" // the disk does not keep up; not acknowledged
)

// An admission decides what is let in. It holds the operators' cards.
type admission struct {
	network   string                // "" admits every network
	operators map[ban.Operator]bool // nil allows all
	limits    Limits
	store     *retained.Store
	banned    *banList

	mu    sync.RWMutex
	cards map[ban.Operator]*wire.Card
}

// load takes the cards that the store holds.
func (a *admission) load() {
	for _, m := range a.store.Match(wire.Prefix + a.networks() + "/operators/+/card") {
		card, err := wire.OpenCard(m.Payload)
		if err != nil {
			continue
		}
		if old := a.cards[card.Operator]; old == nil || old.Serial < card.Serial {
			a.cards[card.Operator] = card
		}
	}
}

// networks gives the level of a filter that stands for what is admitted.
func (a *admission) networks() string {
	if a.network == "" {
		return "+"
	}
	return a.network
}

// owner says whose quota a topic uses: one node's, or one operator's for its
// documents.
func owner(topic string) string {
	levels := strings.SplitN(topic, "/", 7)
	switch {
	case len(levels) < 6:
		return ""
	case levels[3] == "operators":
		return levels[4]
	}
	return levels[4] + "/" + levels[5]
}

// A ruling is what admission found out about a publication.
type ruling struct {
	message *retained.Message
	// same says that exactly this is retained already.
	same bool
	card *wire.Card
}

// admit judges a publication: cheap checks first, the signature after all that
// could make it worthless. payload is copied where it is kept.
func (a *admission) admit(who identity, topic string, payload []byte, qos byte, retain bool, now time.Time) (ruling, refusal) {
	if who.access != AccessFull {
		return ruling{}, refusedAccess
	}
	name, err := wire.ParseTopicName(topic)
	switch {
	case err != nil, a.network != "" && name.Network != a.network:
		return ruling{}, refusedTopic
	case !a.allowed(name):
		return ruling{}, refusedOperator
	case who.method == "key" && !who.mayPublish(name):
		return ruling{}, refusedAccess
	case !retain:
		return ruling{}, refusedRetain
	case len(payload) == 0:
		return ruling{}, refusedEmpty
	}
	h, err := wire.Inspect(name, payload)
	switch {
	case errors.Is(err, wire.ErrSize):
		return ruling{}, refusedSize
	case errors.Is(err, wire.ErrMisplaced):
		return ruling{}, refusedPlacement
	case err != nil:
		return ruling{}, refusedFormat
	case h.Ahead(now):
		return ruling{}, refusedFuture
	}
	old := a.store.Get(topic)
	if old != nil {
		switch {
		case h.Epoch < old.Epoch, h.Epoch == old.Epoch && h.Number < old.Number:
			return ruling{}, refusedStale
		case bytes.Equal(old.Payload, payload):
			return ruling{message: old, same: true}, admitted
		}
	}
	if name.OfNode() && !a.certifies(name.Operator, h) {
		return ruling{}, refusedCertificate
	}
	if !a.room(topic, old, len(payload)) {
		return ruling{}, refusedQuota
	}
	m, err := wire.Open(name, payload)
	switch {
	case errors.Is(err, wire.ErrSignature):
		return ruling{}, refusedSignature
	case errors.Is(err, wire.ErrMisplaced):
		return ruling{}, refusedPlacement
	case err != nil:
		return ruling{}, refusedFormat
	}
	r := ruling{message: &retained.Message{
		Topic: topic, Payload: bytes.Clone(payload), QoS: qos, Epoch: h.Epoch, Number: h.Number, Received: now,
	}}
	r.card, _ = m.Body.(*wire.Card)
	return r, admitted
}

// mayPublish says whether a node that proved its key may publish under a name:
// its own feeds, and the documents of its operator, which prove themselves.
func (w identity) mayPublish(n wire.Name) bool {
	if w.operator != (ban.Operator{}) && n.Operator != w.operator {
		return false
	}
	return !n.OfNode() || n.Node == w.node
}

func (a *admission) allowed(n wire.Name) bool {
	if a.operators != nil && !a.operators[n.Operator] {
		return false
	}
	return !a.banned.has(n.Operator.String(), n.Node.String())
}

// certifies says whether the operator's card lets the signer speak.
func (a *admission) certifies(o ban.Operator, h wire.Header) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	card := a.cards[o]
	return card != nil && card.Certifies(h.Signer, h.Issued) == nil
}

// room says whether quotas leave room for a payload in place of the old.
func (a *admission) room(topic string, old *retained.Message, size int) bool {
	of, all := a.store.Usage(owner(topic))
	if old != nil {
		size -= len(old.Payload)
	} else {
		of.Messages++
	}
	return of.Messages <= a.limits.FeedMessages && of.Bytes+size <= a.limits.FeedBytes && all.Bytes+size <= a.limits.TotalBytes
}

// learn takes a card into account and gives the topics of messages that it
// voids: those of nodes that it revokes. visited is what the search cost.
func (a *admission) learn(card *wire.Card) (void []string, visited int) {
	a.mu.Lock()
	if old := a.cards[card.Operator]; old == nil || old.Serial <= card.Serial {
		a.cards[card.Operator] = card
	}
	a.mu.Unlock()
	if len(card.Revocations) == 0 {
		return nil, 0
	}
	since := make(map[ban.Node]time.Time, len(card.Revocations))
	for _, r := range card.Revocations {
		since[r.Node] = r.Since
	}
	found, visited := a.store.Search(wire.Prefix + a.networks() + "/+/" + card.Operator.String() + "/#")
	for _, m := range found {
		name, err := wire.ParseTopicName(m.Topic)
		if err != nil || !name.OfNode() {
			continue
		}
		from, revoked := since[name.Node]
		if !revoked {
			continue
		}
		if h, err := wire.Peek(m.Payload); err != nil || !h.Issued.Before(from) {
			void = append(void, m.Topic)
		}
	}
	return void, visited
}
