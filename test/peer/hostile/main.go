// Command hostile is a peer that wants to harm those who follow it: its keys are
// its own and its signatures are right, and its claims are too many, too
// often, contradictory, or nonsense. It publishes at a broker until it is ended
// or -for is over.
package main

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

func main() {
	broker := flag.String("broker", "", "URL of the broker")
	state := flag.String("state", "", "directory with the peer's keys")
	network := flag.String("network", "banmesh", "network")
	topic := flag.String("topic", "sshd", "topic of its feeds")
	seed := flag.Uint64("seed", 1, "where chance begins")
	life := flag.Duration("for", time.Minute, "how long it goes on")
	flag.Parse()
	if err := run(*broker, *state, *network, ban.Topic(*topic), *seed, *life); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(broker, state, network string, topic ban.Topic, seed uint64, life time.Duration) error {
	id, err := keys.Load(state)
	if err != nil {
		return err
	}
	root, err := id.Root()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), life)
	defer cancel()
	c, err := mqttclient.Dial(ctx, mqttclient.Endpoint{URL: broker, ClientID: "hostile-peer"})
	if err != nil {
		return err
	}
	defer c.Close()
	go c.KeepAlive(ctx)
	p := &peer{
		conn: c, network: network, topic: topic, operator: id.Operator(), root: root, nodes: []ed25519.PrivateKey{id.Signer()},
		chance: rand.New(rand.NewPCG(seed, 7)), epoch: uint64(time.Now().Unix()) << wire.EpochShift, serial: 1 << 20,
	}
	if card, _ := id.Card(); card != nil {
		p.serial = card.Serial
	}
	if err := p.card(1); err != nil {
		return err
	}
	fmt.Println("begun")
	for n := 0; ctx.Err() == nil; n++ {
		if err := moods[p.chance.IntN(len(moods))](p); err != nil {
			return fmt.Errorf("after %d steps: %w", n, err)
		}
		// A flood is a mood of its own; between them a victim has time to show
		// that it goes on.
		time.Sleep(time.Duration(p.chance.IntN(20)) * time.Millisecond)
	}
	return nil
}

// A peer has an operator's root key and as many node keys as it likes.
type peer struct {
	conn          *mqttclient.Conn
	network       string
	topic         ban.Topic
	operator      ban.Operator
	root          ed25519.PrivateKey
	nodes         []ed25519.PrivateKey
	chance        *rand.Rand
	epoch, serial uint64
	number        uint64
}

var moods = []func(*peer) error{
	(*peer).dispute, (*peer).delta, (*peer).head, (*peer).head, (*peer).epochs, (*peer).chunk, (*peer).manifest, (*peer).garbage,
	(*peer).manyNodes, (*peer).definition, (*peer).trust, (*peer).flood, (*peer).contradict, (*peer).state, (*peer).state,
}

// publish sends a retained message at QoS 0.
func (p *peer) publish(topic string, payload []byte) error {
	packet, _ := frame.AppendPublish(nil, topic, payload, 0, true)
	return p.conn.Send(packet)
}

// say signs a body as one of the nodes and publishes it.
func (p *peer) say(k wire.Kind, slot int, epoch, number uint64, at time.Time, body []byte) error {
	key := p.nodes[p.chance.IntN(len(p.nodes))]
	feed := ban.Feed{Topic: p.topic, Operator: p.operator, Node: ban.NodeOf(key.Public().(ed25519.PublicKey))}
	h := wire.Header{Kind: k, Network: p.network, Topic: p.topic, Operator: p.operator, Epoch: epoch, Number: number, Issued: at}
	return p.publish(wire.FeedName(p.network, feed, k, slot).String(), wire.Seal(key, h, body))
}

// card signs a card with so many fresh nodes beside the first.
func (p *peer) card(nodes int) error {
	p.serial++
	for len(p.nodes) < nodes {
		var seed [ed25519.SeedSize]byte
		for i := range seed {
			seed[i] = byte(p.chance.Uint32())
		}
		p.nodes = append(p.nodes, ed25519.NewKeyFromSeed(seed[:]))
	}
	now := time.Now()
	c := wire.Card{Serial: p.serial, Issued: now, Name: "mallory\u202e"}
	for _, k := range p.nodes {
		var public wire.PublicKey
		copy(public[:], k.Public().(ed25519.PublicKey))
		c.Certificates = append(c.Certificates, wire.Certificate{Key: public, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
	}
	raw, err := c.Sign(p.root)
	if err != nil {
		c.Name = "mallory"
		if raw, err = c.Sign(p.root); err != nil {
			return err
		}
	}
	return p.publish(wire.Name{Network: p.network, Kind: wire.KindCard, Operator: p.operator}.String(), raw)
}

func (p *peer) manyNodes() error { return p.card(min(wire.MaxNodes, len(p.nodes)+1+p.chance.IntN(8))) }

// entries draws sorted claims of addresses that are anybody's.
func (p *peer) entries(n int) []wire.Entry {
	now := time.Now()
	claims := make([]ban.Claim, 0, n)
	for range n {
		x := p.chance.Uint32()
		text := fmt.Sprintf("%d.%d.%d.%d", x>>24, x>>16&255, x>>8&255, x&255)
		switch p.chance.IntN(8) {
		case 0:
			text = fmt.Sprintf("%d.%d.%d.0/24", x>>24, x>>16&255, x>>8&255)
		case 1:
			text = fmt.Sprintf("2001:db8:%x:%x::/64", x>>16, x&0xffff)
		case 2:
			text = fmt.Sprintf("0x%040x", x)
		case 3:
			text = fmt.Sprintf("10.0.%d.%d", x>>8&255, x&255) // never to be banned
		}
		if t, err := ban.ParseTarget(text); err == nil {
			claims = append(claims, ban.Claim{Target: t, End: now.Add(time.Duration(1+p.chance.IntN(100_000)) * time.Minute), Class: ban.ClassAuth, Hits: uint8(p.chance.IntN(256))})
		}
	}
	return wire.SortClaims(claims, now)
}

func (p *peer) random() (f wire.Fingerprint) {
	for i := range f {
		f[i] = byte(p.chance.Uint32())
	}
	return f
}

// dispute disputes about as many targets as a message holds.
func (p *peer) dispute() error {
	p.number++
	return p.say(wire.KindDispute, 0, p.epoch, p.number, time.Now(), (&wire.Dispute{Up: p.entries(10_001 * p.chance.IntN(2))}).Append(nil))
}

func (p *peer) delta() error {
	n := uint64(1 + p.chance.IntN(64))
	return p.say(wire.KindDelta, int(n%32), p.epoch, n, time.Now(), (&wire.Delta{GC: p.chance.Uint32(), Fingerprint: p.random(), Up: p.entries(p.chance.IntN(wire.MaxDeltaOps))}).Append(nil))
}

// head commits to a state that nobody has.
func (p *peer) head() error {
	p.number++
	h := &wire.Head{
		N: uint64(p.chance.IntN(1 << 20)), TTL: time.Hour, GC: wire.Minutes(time.Now()), Count: uint32(p.chance.IntN(wire.MaxFeedClaims)), Fingerprint: p.random(), Ring: uint16(1 + p.chance.IntN(wire.MaxRing)),
		CardSerial: p.serial + uint64(p.chance.IntN(3)),
	}
	if p.chance.IntN(2) == 0 {
		f := p.random()
		copy(h.Manifest[:], f[:])
		h.Size = uint32(p.chance.IntN(1 << 17))
	} else {
		h.Pieces = &wire.Pieces{}
	}
	return p.say(wire.KindHead, 0, p.epoch, p.number, time.Now(), h.Append(nil))
}

// epochs begins again, many times at once.
func (p *peer) epochs() error {
	for range 20 {
		p.epoch += 1 << wire.EpochShift
		if err := p.head(); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) chunk() error {
	slot := p.chance.IntN(wire.MaxSlot)
	return p.say(wire.KindChunk, slot, p.epoch, 1, time.Now(), (&wire.Chunk{Slot: slot, Up: p.entries(500)}).Append(nil))
}

func (p *peer) manifest() error {
	var pieces wire.Pieces
	for i := range 1 + p.chance.IntN(wire.MaxPieces) {
		f := p.random()
		ref := wire.ChunkRef{Slot: i, Size: 1 << 16}
		copy(ref.Hash[:], f[:])
		pieces.Chunks = append(pieces.Chunks, ref)
	}
	return p.say(wire.KindManifest, 0, p.epoch, p.number, time.Now(), (&wire.Manifest{Pieces: pieces}).Append(nil))
}

// garbage signs bytes that are no body.
func (p *peer) garbage() error {
	body := make([]byte, p.chance.IntN(1<<12))
	for i := range body {
		body[i] = byte(p.chance.Uint32())
	}
	at := time.Now().Add(time.Duration(p.chance.IntN(2000)-1000) * time.Hour)
	return p.say(wire.Kind(1+p.chance.IntN(6)), p.chance.IntN(32), p.chance.Uint64(), p.chance.Uint64(), at, body)
}

// definition publishes a topic that names two addresses in one expression, or a
// quarter of a message of nonsense.
func (p *peer) definition() error {
	text := "name = \"sshd\"\ntarget = \"ip\"\n[detect]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^<ADDR> and <ADDR>$', '(((((a*)*)*)*)*)*$']\n"
	if p.chance.IntN(2) == 0 {
		text = strings.Repeat("\u202ex = {", 4000)
	}
	p.serial++
	raw, err := wire.SignDefinition(p.root, p.network, p.topic, p.serial, time.Now(), text)
	if err != nil {
		return nil //nolint:nilerr // a document that cannot be signed is not sent
	}
	return p.publish(wire.Name{Network: p.network, Kind: wire.KindDefinition, Topic: p.topic, Operator: p.operator}.String(), raw)
}

func (p *peer) trust() error {
	var list wire.Trust
	for range p.chance.IntN(wire.MaxTrusted) {
		f := p.random()
		var o ban.Operator
		copy(o[:], f[:])
		list.Operators = append(list.Operators, wire.Trusted{Operator: o, Weight: 100, Follows: true, Name: "x\u200f"})
	}
	p.serial++
	raw, err := wire.SignTrust(p.root, p.network, p.serial, time.Now(), list)
	if err != nil {
		return nil //nolint:nilerr // a document that cannot be signed is not sent
	}
	return p.publish(wire.Name{Network: p.network, Kind: wire.KindTrust, Operator: p.operator}.String(), raw)
}

// flood says as much as fits into a moment.
func (p *peer) flood() error {
	for range 200 {
		if err := p.delta(); err != nil {
			return err
		}
	}
	return nil
}

// contradict says two things under one number.
func (p *peer) contradict() error {
	p.number++
	for range 2 {
		h := &wire.Head{N: 1, TTL: time.Hour, GC: wire.Minutes(time.Now()), Fingerprint: p.random(), Ring: 32, Pieces: &wire.Pieces{}}
		if err := p.say(wire.KindHead, 0, p.epoch, p.number, time.Now(), h.Append(nil)); err != nil {
			return err
		}
	}
	p.epoch += 1 << wire.EpochShift
	return nil
}

// state says a whole state that is right, of many claims: a join each.
func (p *peer) state() error {
	p.epoch += 1 << wire.EpochShift
	p.number++
	slot := p.chance.IntN(64)
	body := (&wire.Chunk{Slot: slot, Up: p.entries(2000)}).Append(nil)
	if err := p.say(wire.KindChunk, slot, p.epoch, 1, time.Now(), body); err != nil {
		return err
	}
	h := &wire.Head{TTL: time.Hour, GC: wire.Minutes(time.Now()), Count: 2000, Fingerprint: p.random(), Ring: 32, Pieces: &wire.Pieces{Chunks: []wire.ChunkRef{{Slot: slot, Hash: wire.HashOf(body), Size: uint32(len(body))}}}}
	return p.say(wire.KindHead, 0, p.epoch, p.number, time.Now(), h.Append(nil))
}
