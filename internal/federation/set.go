package federation

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"banmesh/internal/ban"
)

// pageSize is how many entries a page of a set holds at most: a change moves
// at most some kilobytes, and a million claims take two thousand pages.
const pageSize = 512

// A set is the state of a feed: entries sorted by key, in pages of one kind
// each, with the fingerprint kept up to date. An IPv4 claim takes 16 bytes.
type set struct {
	pages       []*page
	count       int
	fingerprint Fingerprint
}

type page struct {
	kind ban.Kind
	keys []byte // count * width(kind)
	rest []rest
	// least is at most the least end in the page, so that expiry skips pages
	// where nothing ends.
	least uint32
}

type rest struct {
	end, said uint32
	meta      meta
}

func (p *page) key(i int) (k key) {
	w := width(p.kind)
	k.kind = p.kind
	copy(k.b[:], p.keys[i*w:(i+1)*w])
	return k
}

func (p *page) entry(i int) entry {
	r := p.rest[i]
	return entry{key: p.key(i), end: r.end, meta: r.meta, said: r.said}
}

// compare orders the page's key i and k.
func (p *page) compare(i int, k *key) int {
	w := width(p.kind)
	return cmp.Or(cmp.Compare(p.kind, k.kind), bytes.Compare(p.keys[i*w:(i+1)*w], k.b[:w]))
}

// find gives the page and the place where k is, or where it belongs.
func (s *set) find(k *key) (at, i int, found bool) {
	at = sort.Search(len(s.pages), func(n int) bool {
		p := s.pages[n]
		return p.compare(len(p.rest)-1, k) >= 0
	})
	if at == len(s.pages) || s.pages[at].kind != k.kind {
		return at, 0, false
	}
	p := s.pages[at]
	i = sort.Search(len(p.rest), func(n int) bool { return p.compare(n, k) >= 0 })
	return at, i, i < len(p.rest) && p.compare(i, k) == 0
}

// get gives the entry of a key.
func (s *set) get(k *key) (entry, bool) {
	at, i, ok := s.find(k)
	if !ok {
		return entry{}, false
	}
	return s.pages[at].entry(i), true
}

// put adds or replaces an entry.
func (s *set) put(e *entry) {
	at, i, found := s.find(&e.key)
	s.fingerprint.add(e)
	if found {
		p := s.pages[at]
		old := p.entry(i)
		s.fingerprint.remove(&old)
		p.rest[i] = rest{e.end, e.said, e.meta}
		p.least = min(p.least, e.end)
		return
	}
	s.count++
	w := width(e.key.kind)
	// Past the last key of its kind: the page before takes it, if it has room.
	if (at == len(s.pages) || s.pages[at].kind != e.key.kind) && at > 0 && s.pages[at-1].kind == e.key.kind && len(s.pages[at-1].rest) < pageSize {
		at--
		i = len(s.pages[at].rest)
	} else if at == len(s.pages) || s.pages[at].kind != e.key.kind {
		s.pages = slices.Insert(s.pages, at, &page{kind: e.key.kind, least: e.end})
		i = 0
	}
	p := s.pages[at]
	p.keys = slices.Insert(p.keys, i*w, e.key.bytes()...)
	p.rest = slices.Insert(p.rest, i, rest{e.end, e.said, e.meta})
	p.least = min(p.least, e.end)
	if n := len(p.rest); n > pageSize {
		h := n / 2
		q := &page{kind: p.kind, keys: slices.Clone(p.keys[h*w:]), rest: slices.Clone(p.rest[h:]), least: p.least}
		p.keys, p.rest = p.keys[:h*w], p.rest[:h]
		s.pages = slices.Insert(s.pages, at+1, q)
	}
}

// remove takes a key out and gives its entry.
func (s *set) remove(k *key) (entry, bool) {
	at, i, found := s.find(k)
	if !found {
		return entry{}, false
	}
	p, w := s.pages[at], width(k.kind)
	e := p.entry(i)
	s.fingerprint.remove(&e)
	s.count--
	p.keys = slices.Delete(p.keys, i*w, (i+1)*w)
	p.rest = slices.Delete(p.rest, i, i+1)
	if len(p.rest) == 0 {
		s.pages = slices.Delete(s.pages, at, at+1)
	}
	return e, true
}

// expire takes out every entry that ends at or before gc.
func (s *set) expire(gc uint32) (gone []key) {
	return s.removeIf(func(r rest) bool { return r.end <= gc }, func(p *page) bool { return p.least > gc })
}

// removeIf takes out the entries for which gone says so. skip says that a page
// has none.
func (s *set) removeIf(gone func(rest) bool, skip func(*page) bool) (out []key) {
	for _, p := range s.pages {
		if skip(p) {
			continue
		}
		w, kept := width(p.kind), 0
		least := uint32(1<<32 - 1)
		for i, r := range p.rest {
			if gone(r) {
				e := p.entry(i)
				s.fingerprint.remove(&e)
				out = append(out, e.key)
				continue
			}
			copy(p.keys[kept*w:], p.keys[i*w:(i+1)*w])
			p.rest[kept] = r
			kept++
			least = min(least, r.end)
		}
		p.keys, p.rest, p.least = p.keys[:kept*w], p.rest[:kept], least
	}
	if len(out) > 0 {
		s.count -= len(out)
		s.pages = slices.DeleteFunc(s.pages, func(p *page) bool { return len(p.rest) == 0 })
	}
	return out
}

// apply puts a step into effect: first expiry, then up, then down.
func (s *set) apply(gc uint32, up []entry, down []key, said uint32) {
	s.expire(gc)
	for i := range up {
		up[i].said = said
		s.put(&up[i])
	}
	for i := range down {
		s.remove(&down[i])
	}
}

// ascend calls f with the entries with keys from lo to hi, hi not included and
// "" for no bound.
func (s *set) ascend(lo, hi string, f func(*entry)) {
	at, i := 0, 0
	if lo != "" {
		k := keyOfText(lo)
		at, i, _ = s.find(&k)
	}
	for ; at < len(s.pages); at, i = at+1, 0 {
		p := s.pages[at]
		for ; i < len(p.rest); i++ {
			e := p.entry(i)
			if hi != "" && e.key.text() >= hi {
				return
			}
			f(&e)
		}
	}
}

// between gives what ascend does, as a list.
func (s *set) between(lo, hi string) (out []entry) {
	s.ascend(lo, hi, func(e *entry) { out = append(out, *e) })
	return out
}

// each calls f with every entry, in order.
func (s *set) each(f func(*entry)) {
	for _, p := range s.pages {
		for i := range p.rest {
			e := p.entry(i)
			f(&e)
		}
	}
}

// keyOfText reads a chunk's bound. The bytes may be no target; they only
// divide.
func keyOfText(s string) (k key) {
	k.kind = ban.Kind(s[0])
	copy(k.b[:], s[1:])
	return k
}

// difference calls put for every entry of b that a lacks or has otherwise, and
// drop for every key of a that b lacks.
func difference(a, b *set, put func(*entry), drop func(*key)) {
	x, y := cursor{s: a}, cursor{s: b}
	for {
		e, f := x.peek(), y.peek()
		switch {
		case e == nil && f == nil:
			return
		case f == nil || e != nil && compareKeys(&e.key, &f.key) < 0:
			drop(&e.key)
			x.i++
		case e == nil || compareKeys(&e.key, &f.key) > 0:
			put(f)
			y.i++
		default:
			if e.end != f.end || e.meta != f.meta {
				put(f)
			}
			x.i++
			y.i++
		}
	}
}

// A cursor walks a set.
type cursor struct {
	s     *set
	at, i int
	e     entry
}

func (c *cursor) peek() *entry {
	for c.at < len(c.s.pages) && c.i >= len(c.s.pages[c.at].rest) {
		c.at, c.i = c.at+1, 0
	}
	if c.at >= len(c.s.pages) {
		return nil
	}
	c.e = c.s.pages[c.at].entry(c.i)
	return &c.e
}
