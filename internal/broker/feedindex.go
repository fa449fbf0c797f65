package broker

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// feedIndexes are the indexes of the networks that are served, made when somebody
// asks: a few milliseconds for ten thousand feeds.
type feedIndexes struct {
	mu sync.Mutex
	of map[string]feedIndex // by network
}

type feedIndex struct {
	shards  [][]byte
	changes uint64 // of the store
	made    time.Time
}

// indexAge is how long an index counts although feeds changed: agents that come
// back together are answered from one.
const indexAge = 250 * time.Millisecond

// maxIndexes bounds the networks whose index is kept.
const maxIndexes = 16

// feedIndex gives the messages of a network's index.
func (b *Broker) feedIndex(network string) [][]byte {
	x := &b.feedIndexes
	x.mu.Lock()
	defer x.mu.Unlock()
	now, changes := time.Now(), b.store.Changes()
	if was, ok := x.of[network]; ok && (was.changes == changes || now.Sub(was.made) < indexAge) {
		return was.shards
	}
	if x.of == nil || len(x.of) >= maxIndexes {
		x.of = map[string]feedIndex{}
	}
	shards := wire.AppendIndex(indexEntries(b.store, network))
	x.of[network] = feedIndex{shards, changes, now}
	return shards
}

// indexEntries gives the entries of all feeds and cards of a network.
func indexEntries(s *retained.Store, network string) (out []wire.IndexEntry) {
	prefix := wire.Prefix + network + "/"
	disputes := map[ban.Feed][2]uint64{}
	for _, m := range s.Match(prefix + "+/+/+/" + wire.KindDispute.String()) {
		if n, err := wire.ParseTopicName(m.Topic); err == nil {
			disputes[n.Feed()] = [2]uint64{m.Epoch, m.Number}
		}
	}
	for _, m := range s.Match(prefix + "+/+/+/" + wire.KindHead.String()) {
		n, err := wire.ParseTopicName(m.Topic)
		if err != nil {
			continue
		}
		if batch, ok := wire.BatchOfHead(m.Payload); ok {
			d := disputes[n.Feed()]
			out = append(out, wire.IndexOfFeed(n.Feed(), m.Epoch, batch, d[0], d[1]))
		}
	}
	for _, m := range s.Match(prefix + wire.OperatorsLevel + "/+/" + wire.KindCard.String()) {
		if n, err := wire.ParseTopicName(m.Topic); err == nil {
			out = append(out, wire.IndexOfCard(n.Operator, m.Number))
		}
	}
	return out
}

// servesIndex says whether a filter asks for the index of a network that is
// served here.
func (b *Broker) servesIndex(filter string) (network string, ok bool) {
	network, ok = wire.IndexNetwork(filter)
	return network, ok && !b.options.Open && strings.HasPrefix(wire.Prefix+network+"/", b.prefix)
}

// sendIndex hands a client the index that it asks for. false says that it asks
// too often.
func (b *Broker) sendIndex(c *conn, network string) bool {
	shards := b.feedIndex(network)
	size := 0
	for i, payload := range shards {
		f := encode(wire.IndexPrefix+network+"/"+strconv.Itoa(i), payload, 0, true)
		if d := c.session.deliver(&f, 0); d.flush != nil {
			b.flush.add(d.flush)
		}
		size += len(payload)
	}
	return b.charge(c, 1+float64(size)/indexPrice, b.now())
}

// indexPrice is how many bytes of an index cost as much as a publication.
const indexPrice = 4 << 10
