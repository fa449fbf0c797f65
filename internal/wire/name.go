package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"banmesh/internal/ban"
)

// Kind is the type of a message. The numbers are part of the protocol.
type Kind uint8

// Kinds of messages.
const (
	KindHead       Kind = 1  // the signed commit of a feed
	KindDelta      Kind = 2  // one batch of changes
	KindSegment    Kind = 3  // merged deltas, for a reader that was away
	KindChunk      Kind = 4  // a range of a feed's snapshot
	KindManifest   Kind = 5  // the list of pieces, where a head cannot hold it
	KindDispute    Kind = 6  // a node's signed negative votes in a topic
	KindCard       Kind = 7  // an operator's key document
	KindTrust      Kind = 8  // whom an operator trusts, for those who follow it
	KindDefinition Kind = 9  // a topic definition that an operator publishes
	KindInvitation Kind = 10 // how to join a network; never on MQTT
	KindLive       Kind = 11 // only of names: copies of a node's heads, deltas and disputes, or of an operator's cards, that no broker keeps
	KindList       Kind = 12 // an operator's document about the wallets that it denies in a topic
)

var kindNames = [...]string{
	KindHead: "head", KindDelta: "delta", KindSegment: "segment", KindChunk: "chunk", KindManifest: "manifest",
	KindDispute: "dispute", KindCard: "card", KindTrust: "trust", KindDefinition: "topics", KindInvitation: "invitation", KindLive: "live", KindList: "list",
}

// String gives the word that stands for the kind in MQTT topics.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// OfNode says whether messages of the kind belong to a feed and are signed by
// a node's key; the others are signed by an operator's root key.
func (k Kind) OfNode() bool { return k >= KindHead && k <= KindDispute }

// HasTopic says whether an operator signs one document of the kind for each
// topic, which the MQTT topic then ends in.
func (k Kind) HasTopic() bool { return k == KindDefinition || k == KindList }

// IsDocument says whether messages of the kind are documents of an operator that
// replace each other by their number.
func (k Kind) IsDocument() bool { return k == KindTrust || k == KindDefinition || k == KindList }

// HasSlot says whether the MQTT topic of the kind ends in a slot.
func (k Kind) HasSlot() bool { return k == KindDelta || k == KindSegment || k == KindChunk }

// IsPiece says whether messages of the kind are pieces of a feed that heads and
// manifests name by their hash.
func (k Kind) IsPiece() bool { return k == KindSegment || k == KindChunk || k == KindManifest }

// Prefix begins every MQTT topic of the protocol's version 1.
const Prefix = "banmesh/1/"

// MaxName is the longest MQTT topic of the protocol, in bytes.
const MaxName = len(Prefix) + 2*(ban.MaxTopic+1) + ban.OperatorText + 1 + ban.NodeText + len("/manifest") + len("/8191")

// OperatorsLevel stands where a feed's MQTT topic has the ban topic, so no
// feed can be about a topic of this name.
const OperatorsLevel = "operators"

// ErrName says that an MQTT topic is none of the protocol's.
var ErrName = errors.New("not an MQTT topic of the protocol")

// A Name is an MQTT topic of the protocol, parsed. Names are comparable, and
// one Name has one spelling.
type Name struct {
	Network  string
	Kind     Kind
	Topic    ban.Topic // "" for cards and trust lists
	Operator ban.Operator
	Node     ban.Node // zero unless the kind belongs to a feed
	Slot     int      // of a delta, segment or chunk; 0 otherwise
}

// Feed gives the feed that the name belongs to; it is the zero Feed for a
// card, a trust list or a topic definition.
func (n Name) Feed() ban.Feed {
	if !n.OfNode() {
		return ban.Feed{}
	}
	return ban.Feed{Topic: n.Topic, Operator: n.Operator, Node: n.Node}
}

// OfNode says whether the name belongs to a feed, so that a node's key signs.
func (n Name) OfNode() bool { return n.Kind.OfNode() || n.Kind == KindLive && n.Topic != "" }

// liveCard ends the MQTT topic of live copies of an operator's cards. It has as
// many levels as a feed's, so that one filter hears all that is live of an
// operator.
const liveCard = "card/live"

// Live names the live copies of messages of this name: of a feed's, or of a
// card.
func (n Name) Live() Name {
	n.Kind, n.Slot = KindLive, 0
	return n
}

// HasLive says whether messages of the kind are published live, too.
func (k Kind) HasLive() bool {
	return k == KindHead || k == KindDelta || k == KindDispute || k == KindCard
}

// OfLive gives the name by which a live copy is verified: that of the message
// that it is a copy of, with slot 0. It fails with [ErrName] where the payload
// is of no kind that is copied here.
func OfLive(n Name, payload []byte) (Name, error) {
	h, err := Peek(payload)
	if err != nil {
		return n, err
	}
	if !h.Kind.HasLive() || h.Kind.OfNode() != n.OfNode() {
		return n, fmt.Errorf("a live %v: %w", h.Kind, ErrName)
	}
	n.Kind = h.Kind
	return n, nil
}

// FeedName names a message of a feed.
func FeedName(network string, f ban.Feed, k Kind, slot int) Name {
	return Name{Network: network, Kind: k, Topic: f.Topic, Operator: f.Operator, Node: f.Node, Slot: slot}
}

// String gives the MQTT topic.
func (n Name) String() string {
	var b strings.Builder
	b.Grow(MaxName)
	b.WriteString(Prefix)
	b.WriteString(n.Network)
	b.WriteByte('/')
	if !n.OfNode() {
		b.WriteString(OperatorsLevel + "/")
		b.WriteString(n.Operator.String())
		b.WriteByte('/')
		if n.Kind == KindLive {
			b.WriteString(liveCard)
			return b.String()
		}
		b.WriteString(n.Kind.String())
		if n.Kind.HasTopic() {
			b.WriteByte('/')
			b.WriteString(string(n.Topic))
		}
		return b.String()
	}
	b.WriteString(string(n.Topic))
	b.WriteByte('/')
	b.WriteString(n.Operator.String())
	b.WriteByte('/')
	b.WriteString(n.Node.String())
	b.WriteByte('/')
	b.WriteString(n.Kind.String())
	if n.Kind.HasSlot() {
		b.WriteByte('/')
		b.WriteString(strconv.Itoa(n.Slot))
	}
	return b.String()
}

// ParseTopicName reads an MQTT topic in its one spelling, without wildcards.
// It fails with [ErrName], wrapped.
func ParseTopicName(mqttTopic string) (Name, error) {
	n, err := parseName(mqttTopic)
	if err != nil {
		if len(mqttTopic) > MaxName {
			mqttTopic = mqttTopic[:MaxName] + "..."
		}
		return Name{}, fmt.Errorf("%q: %w: %w", mqttTopic, ErrName, err)
	}
	return n, nil
}

func parseName(s string) (n Name, err error) {
	if len(s) > MaxName {
		return n, errors.New("it is too long")
	}
	rest, ok := strings.CutPrefix(s, Prefix)
	if !ok {
		return n, errors.New("it does not begin with " + Prefix)
	}
	l := strings.Split(rest, "/")
	if len(l) < 4 || len(l) > 6 {
		return n, errors.New("it has the wrong number of levels")
	}
	if err := CheckNetwork(l[0]); err != nil {
		return n, err
	}
	n.Network = l[0]
	if l[1] == OperatorsLevel {
		return parseOperatorName(n, l[2:])
	}
	if n.Topic, err = ban.ParseTopic(l[1]); err != nil {
		return n, err
	}
	if n.Operator, err = ban.ParseOperator(l[2]); err != nil {
		return n, err
	}
	if n.Node, err = ban.ParseNode(l[3]); err != nil {
		return n, err
	}
	if len(l) < 5 {
		return n, errors.New("it has the wrong number of levels")
	}
	for k := KindHead; k <= KindDispute; k++ {
		if l[4] == k.String() {
			n.Kind = k
		}
	}
	if l[4] == KindLive.String() {
		n.Kind = KindLive
	}
	if n.Kind == 0 {
		return n, fmt.Errorf("no kind of message is called %q", l[4])
	}
	if n.Kind.HasSlot() != (len(l) == 6) {
		return n, errors.New("it has the wrong number of levels")
	}
	if n.Kind.HasSlot() {
		n.Slot, err = strconv.Atoi(l[5])
		if err != nil || n.Slot < 0 || n.Slot > MaxSlot || strconv.Itoa(n.Slot) != l[5] {
			return n, fmt.Errorf("%q is no slot", l[5])
		}
	}
	return n, nil
}

// parseOperatorName reads the levels after banmesh/1/<network>/operators/.
func parseOperatorName(n Name, l []string) (_ Name, err error) {
	if n.Operator, err = ban.ParseOperator(l[0]); err != nil {
		return n, err
	}
	switch {
	case len(l) == 2 && l[1] == KindCard.String():
		n.Kind = KindCard
	case len(l) == 3 && l[1]+"/"+l[2] == liveCard:
		n.Kind = KindLive
	case len(l) == 2 && l[1] == KindTrust.String():
		n.Kind = KindTrust
	case len(l) == 3 && l[1] == KindDefinition.String():
		n.Kind = KindDefinition
		n.Topic, err = ban.ParseTopic(l[2])
	case len(l) == 3 && l[1] == KindList.String():
		n.Kind = KindList
		n.Topic, err = ban.ParseTopic(l[2])
	default:
		err = errors.New("an operator publishes a card, a trust list, topics and lists")
	}
	return n, err
}

// CheckNetwork checks a network's name, which is spelled like a topic.
func CheckNetwork(s string) error {
	_, err := ban.ParseTopic(s)
	return err
}
