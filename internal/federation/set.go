package federation

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// pageSize is how many entries a page of a set holds at most: a change moves
// at most some kilobytes, and a million claims take two thousand pages.
const pageSize = 512

// A set is the state of a feed: entries sorted by key, in pages of one kind
// each. An IPv4 claim takes 10 bytes, and 4 more where it was not heard together
// with its neighbours.
type set struct {
	pages []*page
	count int
	tree  *tree // nil until the fingerprint is asked for
}

// fingerprint commits to the entries. The first time costs a walk over all, a
// later one as much as has changed since.
func (s *set) fingerprint() wire.Fingerprint {
	if s.tree == nil {
		s.tree = &tree{}
		s.each(func(e *wire.Entry) { s.tree.add(&e.Key, s) })
	}
	return s.tree.fingerprint(s)
}

// A page has its entries in columns, which waste nothing between fields.
type page struct {
	kind  ban.Kind
	keys  []byte // count * width(kind)
	ends  []uint32
	metas []wire.Meta
	// said is the date of all, unless saids has that of each.
	said  uint32
	saids []uint32
	// least is at most the least end in the page, so that expiry skips pages
	// where nothing ends.
	least uint32
}

func (p *page) len() int { return len(p.ends) }

func (p *page) key(i int) (k ban.Key) {
	w := ban.KeyWidth(p.kind)
	k.Kind = p.kind
	copy(k.B[:], p.keys[i*w:(i+1)*w])
	return k
}

func (p *page) entry(i int) wire.Entry {
	return wire.Entry{Key: p.key(i), End: p.ends[i], Meta: p.metas[i], Said: p.saidOf(i)}
}

func (p *page) saidOf(i int) uint32 {
	if p.saids == nil {
		return p.said
	}
	return p.saids[i]
}

// hear makes room for a date of its own where said differs from all others.
func (p *page) hear(said uint32) {
	if p.saids == nil && said != p.said {
		p.saids = slices.Repeat([]uint32{p.said}, p.len())
	}
}

// replace puts an entry in place of that with its key.
func (p *page) replace(i int, e *wire.Entry) {
	p.ends[i], p.metas[i] = e.End, e.Meta
	if p.hear(e.Said); p.saids != nil {
		p.saids[i] = e.Said
	}
	p.least = min(p.least, e.End)
}

func (p *page) insert(i int, e *wire.Entry) {
	if p.len() == 0 {
		p.said, p.least = e.Said, e.End
	}
	if p.hear(e.Said); p.saids != nil {
		p.saids = slices.Insert(p.saids, i, e.Said)
	}
	p.keys = slices.Insert(p.keys, i*ban.KeyWidth(p.kind), e.Key.Bytes()...)
	p.ends = slices.Insert(p.ends, i, e.End)
	p.metas = slices.Insert(p.metas, i, e.Meta)
	p.least = min(p.least, e.End)
}

func (p *page) remove(i int) {
	w := ban.KeyWidth(p.kind)
	p.keys = slices.Delete(p.keys, i*w, (i+1)*w)
	p.ends = slices.Delete(p.ends, i, i+1)
	p.metas = slices.Delete(p.metas, i, i+1)
	if p.saids != nil {
		p.saids = slices.Delete(p.saids, i, i+1)
	}
}

// move puts entry from in place of to.
func (p *page) move(to, from int) {
	w := ban.KeyWidth(p.kind)
	copy(p.keys[to*w:(to+1)*w], p.keys[from*w:(from+1)*w])
	p.ends[to], p.metas[to] = p.ends[from], p.metas[from]
	if p.saids != nil {
		p.saids[to] = p.saids[from]
	}
}

// truncate keeps the first n entries.
func (p *page) truncate(n int) {
	p.keys, p.ends, p.metas = p.keys[:n*ban.KeyWidth(p.kind)], p.ends[:n], p.metas[:n]
	if p.saids != nil {
		p.saids = p.saids[:n]
	}
}

// part copies the entries from i up to j into a page of their own.
func (p *page) part(i, j int) *page {
	w := ban.KeyWidth(p.kind)
	q := &page{
		kind: p.kind, keys: slices.Clone(p.keys[i*w : j*w]), ends: slices.Clone(p.ends[i:j]), metas: slices.Clone(p.metas[i:j]),
		said: p.said, least: p.least,
	}
	if p.saids != nil {
		q.saids = slices.Clone(p.saids[i:j])
	}
	return q
}

// compare orders the page's key i and k.
func (p *page) compare(i int, k *ban.Key) int {
	w := ban.KeyWidth(p.kind)
	return cmp.Or(cmp.Compare(p.kind, k.Kind), bytes.Compare(p.keys[i*w:(i+1)*w], k.B[:w]))
}

// find gives the page and the place where k is, or where it belongs.
func (s *set) find(k *ban.Key) (at, i int, found bool) {
	at = sort.Search(len(s.pages), func(n int) bool {
		p := s.pages[n]
		return p.compare(p.len()-1, k) >= 0
	})
	if at == len(s.pages) || s.pages[at].kind != k.Kind {
		return at, 0, false
	}
	p := s.pages[at]
	i = sort.Search(p.len(), func(n int) bool { return p.compare(n, k) >= 0 })
	return at, i, i < p.len() && p.compare(i, k) == 0
}

// get gives the entry of a key.
func (s *set) get(k *ban.Key) (wire.Entry, bool) {
	at, i, ok := s.find(k)
	if !ok {
		return wire.Entry{}, false
	}
	return s.pages[at].entry(i), true
}

// put adds or replaces an entry.
func (s *set) put(e *wire.Entry) {
	at, i, found := s.find(&e.Key)
	if found {
		s.pages[at].replace(i, e)
		if s.tree != nil {
			s.tree.touch(&e.Key)
		}
		return
	}
	s.count++
	if s.tree != nil {
		defer s.tree.add(&e.Key, s)
	}
	// Past the last key of its kind: the page before takes it, if it has room.
	if (at == len(s.pages) || s.pages[at].kind != e.Key.Kind) && at > 0 && s.pages[at-1].kind == e.Key.Kind && s.pages[at-1].len() < pageSize {
		at--
		i = s.pages[at].len()
	} else if at == len(s.pages) || s.pages[at].kind != e.Key.Kind {
		s.pages = slices.Insert(s.pages, at, &page{kind: e.Key.Kind})
		i = 0
	}
	p := s.pages[at]
	p.insert(i, e)
	if n := p.len(); n > pageSize {
		// Both halves are copied: the old columns have room for a page and more.
		s.pages[at] = p.part(0, n/2)
		s.pages = slices.Insert(s.pages, at+1, p.part(n/2, n))
	}
}

// remove takes a key out and gives its entry.
func (s *set) remove(k *ban.Key) (wire.Entry, bool) {
	at, i, found := s.find(k)
	if !found {
		return wire.Entry{}, false
	}
	p := s.pages[at]
	e := p.entry(i)
	if s.tree != nil {
		s.tree.remove(k)
	}
	s.count--
	if p.remove(i); p.len() == 0 {
		s.pages = slices.Delete(s.pages, at, at+1)
	}
	return e, true
}

// expire takes out every entry that ends at or before gc.
func (s *set) expire(gc uint32) (gone []ban.Key) {
	return s.removeIf(func(p *page, i int) bool { return p.ends[i] <= gc }, func(p *page) bool { return p.least > gc })
}

// removeIf takes out the entries for which gone says so. skip says that a page
// has none.
func (s *set) removeIf(gone func(*page, int) bool, skip func(*page) bool) (out []ban.Key) {
	for _, p := range s.pages {
		if skip(p) {
			continue
		}
		kept, least := 0, uint32(1<<32-1)
		for i := range p.len() {
			if gone(p, i) {
				k := p.key(i)
				if s.tree != nil {
					s.tree.remove(&k)
				}
				out = append(out, k)
				continue
			}
			p.move(kept, i)
			kept++
			least = min(least, p.ends[i])
		}
		p.truncate(kept)
		p.least = least
	}
	if len(out) > 0 {
		s.count -= len(out)
		s.pages = slices.DeleteFunc(s.pages, func(p *page) bool { return p.len() == 0 })
	}
	return out
}

// apply puts a step into effect: first expiry, then up, then down.
func (s *set) apply(gc uint32, up []wire.Entry, down []wire.Withdrawal, said uint32) {
	s.expire(gc)
	for i := range up {
		up[i].Said = said
		s.put(&up[i])
	}
	for i := range down {
		s.remove(&down[i].Key)
	}
}

// ascend calls f with the entries with keys from lo to hi, hi not included and
// "" for no bound.
func (s *set) ascend(lo, hi string, f func(*wire.Entry)) {
	at, i := 0, 0
	if lo != "" {
		k := ban.KeyOfText(lo)
		at, i, _ = s.find(&k)
	}
	for ; at < len(s.pages); at, i = at+1, 0 {
		p := s.pages[at]
		for ; i < p.len(); i++ {
			e := p.entry(i)
			if hi != "" && e.Key.Text() >= hi {
				return
			}
			f(&e)
		}
	}
}

// from calls f with the first n entries whose keys are not below k.
func (s *set) from(k ban.Key, n int, f func(*wire.Entry)) {
	at, i, _ := s.find(&k)
	for ; n > 0 && at < len(s.pages); at, i = at+1, 0 {
		p := s.pages[at]
		for ; n > 0 && i < p.len(); i, n = i+1, n-1 {
			e := p.entry(i)
			f(&e)
		}
	}
}

// between gives the entries of ascend as a list.
func (s *set) between(lo, hi string) (out []wire.Entry) {
	s.ascend(lo, hi, func(e *wire.Entry) { out = append(out, *e) })
	return out
}

// each calls f with every entry, in order.
func (s *set) each(f func(*wire.Entry)) {
	for _, p := range s.pages {
		for i := range p.len() {
			e := p.entry(i)
			f(&e)
		}
	}
}

// difference calls put for every entry of b that a lacks or has otherwise, and
// drop for every key of a that b lacks.
func difference(a, b *set, put func(*wire.Entry), drop func(*ban.Key)) {
	x, y := cursor{s: a}, cursor{s: b}
	for {
		e, f := x.peek(), y.peek()
		switch {
		case e == nil && f == nil:
			return
		case f == nil || e != nil && ban.CompareKeys(&e.Key, &f.Key) < 0:
			drop(&e.Key)
			x.i++
		case e == nil || ban.CompareKeys(&e.Key, &f.Key) > 0:
			put(f)
			y.i++
		default:
			if e.End != f.End || e.Meta != f.Meta {
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
	e     wire.Entry
}

func (c *cursor) peek() *wire.Entry {
	for c.at < len(c.s.pages) && c.i >= c.s.pages[c.at].len() {
		c.at, c.i = c.at+1, 0
	}
	if c.at >= len(c.s.pages) {
		return nil
	}
	c.e = c.s.pages[c.at].entry(c.i)
	return &c.e
}
