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
	refusedStale       refusal = "stale"       // older than the retained message
	refusedFuture      refusal = "future"      // dated in the future
	refusedCertificate refusal = "certificate" // the operator does not certify the node
	refusedSignature   refusal = "signature"
	refusedFormat      refusal = "format"
	refusedQuota       refusal = "quota" // the node's, or the whole broker's
	refusedRate        refusal = "rate"
	refusedBusy        refusal = "busy"     // the disk does not keep up; not acknowledged
	refusedNewcomer    refusal = "newcomer" // too many new operators from one address
)

// Error lets the store's judge answer with a refusal.
func (r refusal) Error() string { return string(r) }

// refusalOf gives the refusal that the store answered with.
func refusalOf(err error) refusal {
	if err == nil {
		return admitted
	}
	if r, ok := errors.AsType[refusal](err); ok {
		return r
	}
	return refusedBusy
}

// An admission decides which publications are let in. It holds the operators' cards.
type admission struct {
	network string // "" admits every network
	limits  Limits
	store   *retained.Store
	banned  *banList

	verified wire.SharedVerifier

	mu        sync.RWMutex
	operators map[ban.Operator]bool // nil allows all
	cards     map[ban.Operator]*wire.Card
	vouched   map[ban.Operator]bool                  // by who runs the broker
	lists     map[ban.Operator][]ban.Operator        // whom an operator's trust list names
	namedBy   map[ban.Operator]map[ban.Operator]bool // the reverse
}

func newAdmission(network string, operators []ban.Operator, l Limits, store *retained.Store, banned *banList) *admission {
	a := &admission{
		network: network, limits: l, store: store, banned: banned, cards: map[ban.Operator]*wire.Card{},
		vouched: map[ban.Operator]bool{}, lists: map[ban.Operator][]ban.Operator{}, namedBy: map[ban.Operator]map[ban.Operator]bool{},
	}
	a.setOperators(operators)
	return a
}

// setOperators sets the only operators that are admitted; none admits all. Those
// that are named are known, too.
func (a *admission) setOperators(operators []ban.Operator) {
	var next map[ban.Operator]bool
	if len(operators) > 0 {
		next = make(map[ban.Operator]bool, len(operators))
		for _, o := range operators {
			next[o] = true
		}
	}
	a.mu.Lock()
	a.operators = next
	a.mu.Unlock()
	a.vouch(operators)
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
	for _, m := range a.store.Match(wire.Prefix + a.networks() + "/operators/+/trust") {
		name, err := wire.ParseTopicName(m.Topic)
		if err != nil {
			continue
		}
		if open, err := wire.Open(name, m.Payload); err == nil {
			if t, ok := open.Body.(*wire.Trust); ok {
				a.learnTrust(name.Operator, t)
			}
		}
	}
}

// networks gives the level of a filter that stands for the networks that are admitted.
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

// A ruling is admission's answer to a publication.
type ruling struct {
	message *retained.Message
	name    wire.Name
	// same says that exactly this is retained already, erase that a node takes
	// back a message of its own feed.
	same, erase bool
	// live says that it is a live copy, which is not kept.
	live bool
	// newcomer says that the operator has nothing here, and nobody vouches.
	newcomer bool
	card     *wire.Card
	trust    *wire.Trust
}

// payload is empty for an erasure.
func (r ruling) payload() []byte {
	if r.erase {
		return nil
	}
	return r.message.Payload
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
	case name.Kind == wire.KindLive:
		return a.admitLive(name, topic, payload, qos, retain, now)
	case !retain:
		return ruling{}, refusedRetain
	case len(payload) == 0:
		// Nothing signs an erasure, so the login has to prove who erases.
		if who.method != "key" || !name.OfNode() {
			return ruling{}, refusedEmpty
		}
		return ruling{name: name, erase: true, message: &retained.Message{Topic: topic}}, admitted
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
	r := ruling{name: name}
	old := a.store.Get(topic)
	switch {
	case old == nil:
	case older(h.Epoch, h.Number, old):
		return r, refusedStale
	case bytes.Equal(old.Payload, payload):
		r.message, r.same = old, true
		return r, admitted
	}
	if name.OfNode() && !a.certifies(name.Operator, h) {
		return ruling{}, refusedCertificate
	}
	of := a.store.Standing(owner(topic))
	r.newcomer = of.Group.Messages == 0 && !a.known(name.Operator)
	if why := a.room(name.Operator, old, len(topic)+len(payload)+messageOverhead, of); why != admitted && why != refusedFull {
		return r, why
	}
	m, why := a.verify(name, payload)
	switch {
	case why != admitted:
		return r, why
	case name.Kind == wire.KindHead && old != nil && h.Epoch == old.Epoch && h.Number == old.Number:
		// The state behind a head is not signed: nobody may change it.
		return r, refusedStale
	}
	r.message = &retained.Message{
		Topic: topic, Payload: bytes.Clone(payload), QoS: qos, Epoch: h.Epoch, Number: h.Number, Received: now,
	}
	r.card, _ = m.Body.(*wire.Card)
	r.trust, _ = m.Body.(*wire.Trust)
	return r, admitted
}

// admitLive judges a live copy: as the message that it is a copy of, but for all
// that has to do with keeping it. Nobody is handed one that is of an epoch which
// the feed's head has left behind.
func (a *admission) admitLive(name wire.Name, topic string, payload []byte, qos byte, retain bool, now time.Time) (ruling, refusal) {
	if retain || len(payload) == 0 {
		return ruling{}, refusedRetain
	}
	of, err := wire.OfLive(name, payload)
	if err != nil {
		return ruling{}, refusedFormat
	}
	h, err := wire.Inspect(of, payload)
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
	if of.OfNode() {
		if !a.certifies(of.Operator, h) {
			return ruling{}, refusedCertificate
		}
		head := of
		head.Kind = wire.KindHead
		if old := a.store.Get(head.String()); old != nil && h.Epoch < old.Epoch {
			return ruling{}, refusedStale
		}
	}
	if _, why := a.verify(of, payload); why != admitted {
		return ruling{}, why
	}
	return ruling{name: name, live: true, message: &retained.Message{Topic: topic, Payload: bytes.Clone(payload), QoS: qos}}, admitted
}

// verify opens a payload whose header passed: signature, placement and the
// strict form of the body. A live copy and the retained message are verified
// once.
func (a *admission) verify(name wire.Name, payload []byte) (*wire.Message, refusal) {
	if name.Kind.HasLive() {
		name.Slot = 0
	}
	if name.Kind.HasLive() {
		return opened(a.verified.Open(name, payload))
	}
	return opened(wire.Open(name, payload))
}

func opened(m *wire.Message, err error) (*wire.Message, refusal) {
	switch {
	case errors.Is(err, wire.ErrSignature):
		return nil, refusedSignature
	case errors.Is(err, wire.ErrMisplaced):
		return nil, refusedPlacement
	case err != nil:
		return nil, refusedFormat
	}
	return m, admitted
}

// older says whether a position in a feed is below that of a message.
func older(epoch, number uint64, than *retained.Message) bool {
	return epoch < than.Epoch || epoch == than.Epoch && number < than.Number
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
	a.mu.RLock()
	refused := a.operators != nil && !a.operators[n.Operator]
	a.mu.RUnlock()
	if refused {
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

// learn takes a card into account and gives the topics of messages that it
// voids: those of nodes that it revokes. visited is the cost of the search.
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
