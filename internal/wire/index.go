package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/ban"
)

// An index is how a broker says which states it retains in a few bytes each, so
// that a reader who comes back asks for those that changed alone. Nobody signs
// it: a broker that lies in it withholds, as it can in any case, until the next
// live head.
const (
	// IndexPrefix and a network's name and shard are the MQTT topic of an index.
	IndexPrefix = "$banmesh/index/"
	// MaxIndexShards is the most messages of one index.
	MaxIndexShards = 64
	// indexShard is how many entries a message has at most; one takes up to five
	// bytes.
	indexShard = 20_000
)

// IndexFilter is the filter for all of a network's index.
func IndexFilter(network string) string { return IndexPrefix + network + "/+" }

// IndexNetwork gives the network of an index's filter, or false.
func IndexNetwork(filter string) (string, bool) {
	rest, ok := strings.CutPrefix(filter, IndexPrefix)
	if !ok {
		return "", false
	}
	network, ok := strings.CutSuffix(rest, "/+")
	return network, ok && CheckNetwork(network) == nil
}

// An IndexEntry stands for one state of a feed or card.
type IndexEntry uint32

// IndexOfFeed is the entry of a feed at a batch, with the newest disputes of its
// node; 0 for none.
func IndexOfFeed(f ban.Feed, epoch, n, disputeEpoch, dispute uint64) IndexEntry {
	b := append([]byte("feed\x00"), f.Topic...)
	b = append(b, 0)
	b = append(append(b, f.Operator[:]...), f.Node[:]...)
	for _, v := range []uint64{epoch, n, disputeEpoch, dispute} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return entryOf(b)
}

// IndexOfCard is the entry of an operator's card.
func IndexOfCard(o ban.Operator, serial uint64) IndexEntry {
	return entryOf(binary.BigEndian.AppendUint64(append([]byte("card\x00"), o[:]...), serial))
}

func entryOf(b []byte) IndexEntry {
	sum := sha256.Sum256(b)
	return IndexEntry(binary.BigEndian.Uint32(sum[:]))
}

// AppendIndex gives the messages of an index: shards u8 | shard u8 | entries
// uvarint | each entry as the difference to the one before, uvarint. Those that
// occur twice stand once. It sorts entries.
func AppendIndex(entries []IndexEntry) (shards [][]byte) {
	slices.Sort(entries)
	entries = slices.Compact(entries)
	n := max(1, (len(entries)+indexShard-1)/indexShard)
	if n > MaxIndexShards {
		return nil // beyond its size nobody is helped by one
	}
	each := (len(entries) + n - 1) / n
	for i := range n {
		part := entries[min(i*each, len(entries)):min((i+1)*each, len(entries))]
		b := binary.AppendUvarint([]byte{byte(n), byte(i)}, uint64(len(part)))
		last := IndexEntry(0)
		for _, e := range part {
			b = binary.AppendUvarint(b, uint64(e-last))
			last = e
		}
		shards = append(shards, b)
	}
	return shards
}

// ErrIndex says that an index is malformed.
var ErrIndex = errors.New("malformed index")

// An Index collects an index's messages.
type Index struct {
	entries map[IndexEntry]struct{}
	shards  []bool
	have    int
}

// Add takes one message and says whether all are here.
func (x *Index) Add(b []byte) (whole bool, err error) {
	d := Decoder{B: b}
	n, i := int(d.U8()), int(d.U8())
	count := int(d.Uvarint(indexShard))
	switch {
	case d.err != nil || len(b) > MaxPayload:
		return false, fmt.Errorf("%w: its beginning", ErrIndex)
	case n == 0 || n > MaxIndexShards || i >= n || x.shards != nil && len(x.shards) != n:
		return false, fmt.Errorf("%w: shard %d of %d", ErrIndex, i, n)
	}
	if x.shards == nil {
		x.shards, x.entries = make([]bool, n), map[IndexEntry]struct{}{}
	}
	last := uint64(0)
	for range count {
		last += d.Uvarint(1<<32 - 1)
		if last >= 1<<32 {
			return false, fmt.Errorf("%w: an entry of more than 32 bits", ErrIndex)
		}
		x.entries[IndexEntry(last)] = struct{}{}
	}
	if err := d.End(); err != nil {
		return false, fmt.Errorf("%w: %w", ErrIndex, err)
	}
	if !x.shards[i] {
		x.shards[i] = true
		x.have++
	}
	return x.have == n, nil
}

// Has says whether the broker retains a state.
func (x *Index) Has(e IndexEntry) bool {
	_, ok := x.entries[e]
	return ok
}

// Len is how many states the broker retains.
func (x *Index) Len() int { return len(x.entries) }
