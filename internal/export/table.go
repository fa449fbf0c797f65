package export

import (
	"context"
	"hash/maphash"
	"iter"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
)

const (
	// shardCount splits the table so that a reader waits for the change of a
	// few entries only, and a snapshot copies about 4,000 of a million at once.
	shardCount = 256
	// keptChanges is how many changes a reader may be behind: 2.3 MB, and an hour
	// of a large network's changes.
	keptChanges = 1 << 16
	// batchChanges bounds one [Batch], so that one line of a stream stays far
	// below a reader's limit.
	batchChanges = 512
)

// A Table holds the bans in force in memory and implements [Bans]. Its owner
// tells it every change with [Table.Apply]; it decides nothing. Bans end at
// whole seconds here: a part of one counts as a whole. All methods may be
// called from several goroutines.
type Table struct {
	now    func() time.Time
	seed   maphash.Seed
	shards [shardCount]shard
	names  names
	// lengths4 and lengths6 count the entries of each prefix length, so that
	// Check looks only where something is.
	lengths4 [33]atomic.Int64
	lengths6 [129]atomic.Int64

	mu      sync.Mutex
	serial  uint64
	changes []change      // that of serial n at n-1, a ring once it is full
	waiting chan struct{} // closed by the next change
}

// record is one topic's word about a target.
type record struct {
	topic ban.Topic
	until uint32 // Unix seconds
	class ban.Class
	here  bool
}

// change is one step of the table's history: 36 bytes.
type change struct {
	key    wideKey
	ban    packed // until is zero when it was lifted
	before uint32 // the end that it had, 0 when it is new
}

// NewTable gives an empty table. now tells the time; nil means [time.Now].
func NewTable(now func() time.Time) *Table {
	if now == nil {
		now = time.Now
	}
	t := &Table{now: now, seed: maphash.MakeSeed(), waiting: make(chan struct{})}
	for i := range t.shards {
		t.shards[i] = newShard()
	}
	return t
}

// Apply makes bans and lifts others. Of these it records only those that
// changes something, so an owner may repeat its whole state. A zero Target, or
// a ban that already ended, is lifted or left out.
func (t *Table) Apply(bans []Entry, lifted []Key) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := false
	for _, k := range lifted {
		changed = t.lift(k) || changed
	}
	for _, e := range bans {
		switch {
		case e.Target.IsZero():
		case !e.Until.After(now):
			changed = t.lift(Key{e.Target, e.Topic}) || changed
		default:
			changed = t.set(e) || changed
		}
	}
	if changed {
		close(t.waiting)
		t.waiting = make(chan struct{})
	}
}

// Expire lifts bans that have ended and says how many. Check and Snapshot leave
// those out in any case; Expire gives the memory back.
func (t *Table) Expire() int {
	now := seconds(t.now())
	var ended []Key
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		s.all(&t.names, func(target ban.Target, r record) {
			if r.until <= now {
				ended = append(ended, Key{target, r.topic})
			}
		})
		s.mu.RUnlock()
	}
	// Apply decides again, under its lock: a ban may have been renewed between.
	t.mu.Lock()
	defer t.mu.Unlock()
	lifted := 0
	for _, k := range ended {
		if until, ok := t.until(k); ok && until <= now && t.lift(k) {
			lifted++
		}
	}
	if lifted > 0 {
		close(t.waiting)
		t.waiting = make(chan struct{})
	}
	return lifted
}

// Serial gives the number of the last change.
func (t *Table) Serial() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.serial
}

// set records an entry; t.mu is held.
func (t *Table) set(e Entry) bool {
	r := record{e.Topic, secondsUp(e.Until), e.Class, e.Here}
	s := t.shard(e.Target)
	s.mu.Lock()
	before, changed, added := s.put(&t.names, e.Target, r)
	if added {
		t.count(e.Target, 1)
	}
	s.mu.Unlock()
	if changed {
		t.log(e.Target, r, before)
	}
	return changed
}

// lift removes an entry; t.mu is held.
func (t *Table) lift(k Key) bool {
	s := t.shard(k.Target)
	s.mu.Lock()
	was, removed, last := s.remove(&t.names, k.Target, k.Topic)
	if last {
		t.count(k.Target, -1)
	}
	s.mu.Unlock()
	if removed {
		before := was.until
		was.until = 0
		t.log(k.Target, was, before)
	}
	return removed
}

// until gives the end of an entry.
func (t *Table) until(k Key) (until uint32, ok bool) {
	s := t.shard(k.Target)
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.each(&t.names, k.Target, func(r record) {
		if r.topic == k.Topic {
			until, ok = r.until, true
		}
	})
	return until, ok
}

// log appends to the history; t.mu is held.
func (t *Table) log(target ban.Target, r record, before uint32) {
	t.serial++
	topic, _ := t.names.number(r.topic) // it was numbered when it was put
	c := change{wideOf(target), packed{r.until, topic, r.class, r.here}, before}
	if len(t.changes) < keptChanges {
		t.changes = append(t.changes, c)
		return
	}
	t.changes[(t.serial-1)%keptChanges] = c
}

func (t *Table) count(target ban.Target, by int64) {
	p, ok := target.Prefix()
	switch {
	case !ok:
	case p.Addr().Is4():
		t.lengths4[p.Bits()].Add(by)
	default:
		t.lengths6[p.Bits()].Add(by)
	}
}

func (t *Table) shard(target ban.Target) *shard {
	return &t.shards[maphash.Comparable(t.seed, target)%shardCount]
}

// Check implements [Bans].
func (t *Table) Check(target ban.Target) (found []Match) {
	now := seconds(t.now())
	p, ok := target.Prefix()
	if !ok {
		return t.exact(target, now, nil)
	}
	lengths := t.lengths6[:]
	if p.Addr().Is4() {
		lengths = t.lengths4[:]
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if lengths[bits].Load() == 0 {
			continue
		}
		around, err := ban.TargetOfPrefix(netip.PrefixFrom(p.Addr(), bits))
		if err != nil {
			continue // no prefix of a valid one is invalid
		}
		found = t.exact(around, now, found)
	}
	return found
}

// exact appends the bans in force of one target.
func (t *Table) exact(target ban.Target, now uint32, found []Match) []Match {
	s := t.shard(target)
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.each(&t.names, target, func(r record) {
		if r.until > now {
			found = append(found, r.entry(target))
		}
	})
	return found
}

func (r record) entry(target ban.Target) Entry {
	return Entry{target, r.topic, time.Unix(int64(r.until), 0).UTC(), r.class, r.here}
}

// seconds and secondsUp give a time as whole Unix seconds, down and up.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

func secondsUp(t time.Time) uint32 { return seconds(t.Add(time.Second - 1)) }

// Snapshot implements [Bans]. It holds no lock while an entry is looked at, so
// a slow reader delays nobody.
func (t *Table) Snapshot() (serial uint64, entries iter.Seq[Entry]) {
	return t.Serial(), func(yield func(Entry) bool) {
		var copied []Entry
		for i := range t.shards {
			copied = t.shards[i].copy(&t.names, seconds(t.now()), copied[:0])
			for _, e := range copied {
				if !yield(e) {
					return
				}
			}
		}
	}
}

func (s *shard) copy(n *names, now uint32, into []Entry) []Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.all(n, func(target ban.Target, r record) {
		if r.until > now {
			into = append(into, r.entry(target))
		}
	})
	return into
}

// Wallets gives the denied wallets in force, in no order, without a look at the
// addresses.
func (t *Table) Wallets() (list []Entry) {
	now := seconds(t.now())
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for k := range s.wide {
			if k.kind != ban.KindWallet {
				continue
			}
			target := k.target()
			s.each(&t.names, target, func(r record) {
				if r.until > now {
					list = append(list, r.entry(target))
				}
			})
		}
		s.mu.RUnlock()
	}
	return list
}

// Next implements [Bans].
func (t *Table) Next(ctx context.Context, serial uint64) (Batch, error) {
	for {
		batch, wait, err := t.since(serial)
		if err != nil || wait == nil {
			return batch, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
}

// since gives the changes after serial, or a channel to wait on. A target that
// changed several times in the batch appears with its last state.
func (t *Table) since(serial uint64) (Batch, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case serial > t.serial, t.serial-serial > uint64(len(t.changes)):
		return Batch{}, nil, ErrBehind
	case serial == t.serial:
		return Batch{}, t.waiting, nil
	}
	last := min(t.serial, serial+batchChanges)
	batch := Batch{Serial: last}
	seen := make(map[Key]bool, last-serial)
	for n := last; n > serial; n-- {
		c := &t.changes[(n-1)%keptChanges]
		target, r := c.key.target(), t.names.record(c.ban)
		k := Key{target, r.topic}
		switch {
		case seen[k]:
			continue
		case r.until == 0:
			batch.Lifted = append(batch.Lifted, k)
		default:
			batch.Bans = append(batch.Bans, r.entry(target))
		}
		seen[k] = true
	}
	slices.Reverse(batch.Bans)
	slices.Reverse(batch.Lifted)
	return batch, nil, nil
}
