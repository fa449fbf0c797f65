package retained

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"banmesh/internal/store"
)

// Errors of [Open], those of the store.
var (
	ErrLocked  = store.ErrLocked
	ErrCorrupt = store.ErrCorrupt
)

// Buckets of the file, and the key of the one record of the second.
const (
	bucket     = "retained"
	state      = "state"
	summaryKey = "summary"
)

// A record is: version u8 | QoS u8 | received u64 (Unix seconds) | heard u64
// (seconds of the store's clock) | group since u64 (the same) | epoch u64 |
// number u64 | CRC-32C u32 | payload; integers are big-endian. Its key is the
// topic, which the checksum covers, too.
const (
	recordVersion = 2
	recordHeader  = 2 + 5*8 + 4
)

// A summary is: messages u64 | sum of their checksums u64 | uptime u64 in
// seconds. It is written with every group, so that a lost page shows.
const summarySize = 3 * 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (m *Message) header() (b [recordHeader]byte) {
	b[0], b[1] = recordVersion, m.QoS
	for i, v := range []uint64{uint64(m.Received.Unix()), uint64(m.Heard / time.Second), uint64(m.since / time.Second), m.Epoch, m.Number} {
		binary.BigEndian.PutUint64(b[2+8*i:], v)
	}
	return b
}

// checksum covers the topic and the record.
func (m *Message) checksum() uint32 {
	h := m.header()
	c := crc32.Update(0, castagnoli, []byte(m.Topic))
	c = crc32.Update(c, castagnoli, h[:recordHeader-4])
	return crc32.Update(c, castagnoli, m.Payload)
}

func encodeRecord(m *Message) []byte {
	h := m.header()
	binary.BigEndian.PutUint32(h[recordHeader-4:], m.sum)
	return append(h[:], m.Payload...)
}

func decodeRecord(topic string, b []byte) (*Message, error) {
	broken := fmt.Errorf("%w: the record of %.200q", ErrCorrupt, topic)
	if len(b) < recordHeader || b[0] != recordVersion || b[1] > 2 {
		return nil, broken
	}
	m := &Message{
		Topic:    topic,
		QoS:      b[1],
		Received: time.Unix(int64(binary.BigEndian.Uint64(b[2:])), 0),
		Heard:    time.Duration(binary.BigEndian.Uint64(b[10:])) * time.Second,
		since:    time.Duration(binary.BigEndian.Uint64(b[18:])) * time.Second,
		Epoch:    binary.BigEndian.Uint64(b[26:]),
		Number:   binary.BigEndian.Uint64(b[34:]),
		stored:   true,
		Payload:  append([]byte(nil), b[recordHeader:]...),
	}
	if m.sum = binary.BigEndian.Uint32(b[42:]); m.sum != m.checksum() {
		return nil, broken
	}
	return m, nil
}

// open opens the file and reads it into memory.
func (s *Store) open(path string) (err error) {
	if s.db, err = store.OpenAs("broker", path); err != nil {
		return err
	}
	if err = s.db.View(s.load); err == nil {
		err = s.db.Check()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), s.db.Close())
	}
	return nil
}

// load reads all messages, and wants that they are those of the summary.
func (s *Store) load(tx store.Tx) error {
	if !tx.Has(bucket) && !tx.Has(state) {
		return nil
	}
	sum := tx.Get(state, summaryKey)
	if len(sum) != summarySize {
		return fmt.Errorf("%w: it has no summary", ErrCorrupt)
	}
	var all []*Message
	err := tx.Each(bucket, "", func(k string, v []byte) error {
		m, err := decodeRecord(k, v)
		if err != nil {
			return err
		}
		m.Owner = s.owner(m.Topic)
		all = append(all, m)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b *Message) int { return cmp.Compare(a.since, b.since) })
	for _, m := range all {
		s.replace(m.Topic, m)
	}
	if uint64(s.total.Messages) != binary.BigEndian.Uint64(sum) || s.sum != binary.BigEndian.Uint64(sum[8:]) {
		return fmt.Errorf("%w: messages are missing from it", ErrCorrupt)
	}
	s.base = time.Duration(binary.BigEndian.Uint64(sum[16:])) * time.Second
	return nil
}

// A written is a group for one transaction, and the summary after it.
type written struct {
	messages map[string]*Message
	count    int
	sum      uint64
	uptime   time.Duration
}

// write makes one durable transaction of a group.
func (s *Store) write(g written) error {
	return s.db.Update(func(tx store.Tx) error {
		for topic, m := range g.messages {
			var err error
			if m == nil {
				err = tx.Delete(bucket, topic)
			} else {
				err = tx.Put(bucket, topic, encodeRecord(m))
			}
			if err != nil {
				return err
			}
		}
		summary := binary.BigEndian.AppendUint64(nil, uint64(g.count))
		summary = binary.BigEndian.AppendUint64(summary, g.sum)
		return tx.Put(state, summaryKey, binary.BigEndian.AppendUint64(summary, uint64(g.uptime/time.Second)))
	})
}

// CheckFile reads a file of retained messages whole.
func CheckFile(path string) error {
	db, err := store.OpenAs("broker", path)
	if err != nil {
		return err
	}
	return errors.Join(db.Check(), db.Close())
}

// ErrMemory says that the messages are in memory alone.
var ErrMemory = errors.New("this broker keeps its retained messages in memory alone")

// Backup writes a consistent copy of the durable messages to w, while the store
// is in use. It fails with [ErrMemory] before it writes anything.
func (s *Store) Backup(w io.Writer) (int64, error) {
	if s.db == nil {
		return 0, ErrMemory
	}
	return s.db.WriteTo(w)
}
