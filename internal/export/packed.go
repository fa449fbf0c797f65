package export

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"banmesh/internal/ban"
)

// shard holds the entries of some targets. A million bans take 20 MB so: a
// target that is banned in one topic, as nearly all are, takes a word beside its
// address, and no allocation of its own.
type shard struct {
	mu   sync.RWMutex
	four map[[4]byte]packed      // single IPv4 addresses
	six  map[[8]byte]packed      // IPv6 /64s
	wide map[wideKey]packed      // all other targets
	more map[ban.Target][]record // by further topics
}

// wideKey is a target of any kind: kind, prefix length, and the bytes of its
// address or wallet.
type wideKey struct {
	kind ban.Kind
	bits uint8
	b    [20]byte
}

// packed is a record, with its topic as an index: 8 bytes.
type packed struct {
	until uint32
	topic uint16
	class ban.Class
	here  bool
}

// names numbers topics. There are as many as the configuration defines.
type names struct{ list atomic.Pointer[[]ban.Topic] }

// number gives the topic's index, made where it has none; the table's lock is
// held. ok is false when there are too many to number.
func (n *names) number(topic ban.Topic) (uint16, bool) {
	list := n.all()
	if i := slices.Index(list, topic); i >= 0 {
		return uint16(i), true
	}
	if len(list) > 1<<16-1 {
		return 0, false
	}
	grown := append(slices.Clip(list), topic)
	n.list.Store(&grown)
	return uint16(len(list)), true
}

func (n *names) all() []ban.Topic {
	if p := n.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (n *names) record(p packed) record { return record{n.all()[p.topic], p.until, p.class, p.here} }

// newShard makes an empty shard.
func newShard() shard {
	return shard{four: map[[4]byte]packed{}, six: map[[8]byte]packed{}, wide: map[wideKey]packed{}, more: map[ban.Target][]record{}}
}

// first gives the record in the maps of single records.
func (s *shard) first(target ban.Target) (p packed, ok bool) {
	switch k := wideOf(target); k.kind {
	case ban.KindAddr4:
		p, ok = s.four[[4]byte(k.b[12:])]
	case ban.KindNet6:
		p, ok = s.six[[8]byte(k.b[:])]
	default:
		p, ok = s.wide[k]
	}
	return p, ok
}

func (s *shard) setFirst(target ban.Target, p packed) {
	switch k := wideOf(target); k.kind {
	case ban.KindAddr4:
		s.four[[4]byte(k.b[12:])] = p
	case ban.KindNet6:
		s.six[[8]byte(k.b[:])] = p
	default:
		s.wide[k] = p
	}
}

func (s *shard) dropFirst(target ban.Target) {
	switch k := wideOf(target); k.kind {
	case ban.KindAddr4:
		delete(s.four, [4]byte(k.b[12:]))
	case ban.KindNet6:
		delete(s.six, [8]byte(k.b[:]))
	default:
		delete(s.wide, k)
	}
}

// each calls f with every record of a target.
func (s *shard) each(n *names, target ban.Target, f func(record)) {
	if p, ok := s.first(target); ok {
		f(n.record(p))
		for _, r := range s.more[target] {
			f(r)
		}
	}
}

// all calls f with every record.
func (s *shard) all(n *names, f func(ban.Target, record)) {
	one := func(target ban.Target, p packed) {
		f(target, n.record(p))
		for _, r := range s.more[target] {
			f(target, r)
		}
	}
	for k, p := range s.four {
		target, _ := ban.TargetOfAddr(netip.AddrFrom4(k)) // every four bytes are one
		one(target, p)
	}
	for k, p := range s.six {
		w := wideKey{kind: ban.KindNet6, bits: 64}
		copy(w.b[:], k[:])
		one(w.target(), p)
	}
	for k, p := range s.wide {
		one(k.target(), p)
	}
}

// put records a topic's word about a target. It reports whether that is news,
// whether the target is, and until when the topic banned it before.
func (s *shard) put(n *names, target ban.Target, r record) (before uint32, changed, added bool) {
	p, had := s.first(target)
	topic, numbered := n.number(r.topic)
	switch {
	case !numbered:
		return 0, false, false
	case had && p.topic == topic:
		next := packed{r.until, topic, r.class, r.here}
		if p == next {
			return 0, false, false
		}
		s.setFirst(target, next)
		return p.until, true, false
	case !had:
		s.setFirst(target, packed{r.until, topic, r.class, r.here})
		return 0, true, true
	}
	records := s.more[target]
	switch i := slices.IndexFunc(records, func(x record) bool { return x.topic == r.topic }); {
	case i >= 0 && records[i] == r:
		return 0, false, false
	case i >= 0:
		before = records[i].until
		records[i] = r
	default:
		s.more[target] = append(records, r)
	}
	return before, true, false
}

// remove forgets a topic's word about a target and gives it. It reports whether
// there was something, and whether it was the last of the target.
func (s *shard) remove(n *names, target ban.Target, topic ban.Topic) (was record, removed, last bool) {
	p, had := s.first(target)
	if !had {
		return record{}, false, false
	}
	records := s.more[target]
	if n.all()[p.topic] == topic {
		was = n.record(p)
		if len(records) == 0 {
			s.dropFirst(target)
			return was, true, true
		}
		number, _ := n.number(records[0].topic) // it was numbered when it was put
		s.setFirst(target, packed{records[0].until, number, records[0].class, records[0].here})
		topic = records[0].topic
	}
	i := slices.IndexFunc(records, func(x record) bool { return x.topic == topic })
	if i < 0 {
		return record{}, false, false
	}
	if was.topic == "" {
		was = records[i]
	}
	if len(records) == 1 {
		delete(s.more, target)
	} else {
		s.more[target] = slices.Delete(records, i, i+1)
	}
	return was, true, false
}

func wideOf(target ban.Target) (k wideKey) {
	k.kind = target.Kind()
	if w, ok := target.Wallet(); ok {
		k.b = w
		return k
	}
	p, _ := target.Prefix()
	a := p.Addr().As16()
	copy(k.b[:], a[:])
	k.bits = uint8(p.Bits())
	return k
}

func (k wideKey) target() (t ban.Target) {
	// Keys are made of targets, so there is none that fails.
	switch k.kind {
	case ban.KindWallet:
		t, _ = ban.TargetOfWallet(k.b)
	case ban.KindAddr4, ban.KindCIDR4:
		t, _ = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte(k.b[:16])).Unmap(), int(k.bits)))
	default:
		t, _ = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte(k.b[:16])), int(k.bits)))
	}
	return t
}
