package desired

import (
	"math/bits"
	"math/rand/v2"
	"unsafe"
)

// slotTable holds slots by address in hardly more memory than address and slot
// take: a million IPv4 bans in 12 MB, where Go's map takes 27. Entries stand in
// the order of a secret permutation of their addresses, each as near as can be
// to the place that its permuted address has on the scale from the first place
// to the last, so that a look-up reads a few neighbours. To grow, they are
// moved page by page in the order in which they stand, and each page that was
// emptied is used again: there is never a second copy, and no garbage.
//
// The permutation is secret because whoever gets banned chooses the addresses:
// ones that crowd together would make every change slow.
type slotTable[K uint32 | uint64] struct {
	secret permutation[K]
	pages  []*page[K]
	span   uint64 // the scale; the places beyond it take the overflow of the last ones
	used   int
	// found is the place of the entry that was looked for last, which is mostly
	// the one that is written next.
	found struct {
		key   K
		place int
		known bool
	}
}

// pageSize makes a page of either kind exactly a size class of Go's allocator.
const pageSize = 1024

// A page is some places in a row. Those with class 0 are free, and have the
// greatest key, so that a search need not look at classes on its way.
type page[K uint32 | uint64] struct {
	key   [pageSize]K // permuted
	until [pageSize]Second
	class [pageSize]uint16
}

// fill is the part of the span, in sixteenths, that is used at most: fuller,
// the rows of entries without a free place between get long.
const fill = 14

func (t *slotTable[K]) len() int { return t.used }

// get gives the slot of an address, the zero slot when there is none.
func (t *slotTable[K]) get(k K) Slot {
	h := t.secret.of(k)
	if at, ok := t.find(h); ok {
		p, i := t.at(at)
		return Slot{p.until[i], p.class[i]}
	}
	return Slot{}
}

// put stores a slot, or forgets the address when it has no class.
func (t *slotTable[K]) put(k K, v Slot) {
	if t.span == 0 {
		t.secret.draw()
		t.rebuild(pageSize, nil)
	}
	h := t.secret.of(k)
	at, ok := t.find(h)
	switch {
	case ok && v.Class == 0:
		t.remove(at)
		return
	case v.Class == 0:
		return
	case !ok:
		if uint64(t.used) >= t.span/16*fill {
			t.rebuild(t.span+max(pageSize, t.span/8), nil)
			at, _ = t.find(h)
		}
		t.open(at)
		t.used++
	}
	p, i := t.at(at)
	p.key[i], p.until[i], p.class[i] = h, v.Until, v.Class
}

// touch reads the memory that put and get of an address will read, and gives something
// that depends on it. Of several addresses in a row the processor waits for all
// at once, where put after put would wait for each.
func (t *slotTable[K]) touch(k K) uint32 {
	place := t.home(t.secret.of(k))
	if place >= t.room() {
		return 0
	}
	p, i := t.at(place)
	return uint32(p.key[i]) + uint32(p.until[i]) + uint32(p.class[i])
}

// each calls f for every address and slot, beginning anywhere, until f says
// no, and says whether it never did. f must not change t.
func (t *slotTable[K]) each(f func(K, Slot) bool) bool {
	if t.used == 0 {
		return true
	}
	first := rand.IntN(t.room())
	return t.walk(first, t.room(), f) && t.walk(0, first, f)
}

// walk is each for the places from one to before another.
func (t *slotTable[K]) walk(from, to int, f func(K, Slot) bool) bool {
	for from < to {
		p, i := t.at(from)
		end := min(pageSize, i+to-from)
		from += end - i
		for ; i < end; i++ {
			if p.class[i] != 0 && !f(t.secret.back(p.key[i]), Slot{p.until[i], p.class[i]}) {
				return false
			}
		}
	}
	return true
}

// keep forgets every address that f says no to.
func (t *slotTable[K]) keep(f func(K, Slot) bool) {
	t.rebuild(t.span, f)
	if least := uint64(t.used)/fill*16 + pageSize; least < t.span/2 {
		t.rebuild(least, nil)
	}
}

// room is how many places there are.
func (t *slotTable[K]) room() int { return len(t.pages) * pageSize }

// at gives the page that a place is on, and where.
func (t *slotTable[K]) at(place int) (*page[K], int) {
	return t.pages[place/pageSize], place % pageSize
}

// home gives the place that an entry has unless others are in its way.
func (t *slotTable[K]) home(h K) int {
	hi, _ := bits.Mul64(uint64(h)<<(64-8*unsafe.Sizeof(h)), t.span)
	return int(hi)
}

// find gives the place of an entry, or the one where it would have to be.
func (t *slotTable[K]) find(h K) (place int, ok bool) {
	if t.found.known && t.found.key == h {
		place = t.found.place
	} else {
		place = t.search(h)
		t.found.key, t.found.place, t.found.known = h, place, true
	}
	if place >= t.room() {
		return place, false
	}
	p, i := t.at(place)
	return place, p.key[i] == h && p.class[i] != 0
}

// search gives the first place from an entry's home on that is free or has an
// entry that is not before it.
func (t *slotTable[K]) search(h K) int {
	place := t.home(h)
	for ; place < t.room(); place += pageSize - place%pageSize {
		p, i := t.at(place)
		for j, key := range p.key[i:] {
			if key >= h {
				return place + j
			}
		}
	}
	return place
}

// fresh empties a page and gives it.
func fresh[K uint32 | uint64](p *page[K]) *page[K] {
	for i := range p.key {
		p.key[i] = ^K(0)
	}
	clear(p.class[:])
	return p
}

// open makes a place free, by moving the entries from it on up to the next free
// place.
func (t *slotTable[K]) open(place int) {
	t.found.known = false
	free := place
	for {
		for free >= t.room() {
			t.pages = append(t.pages, fresh(new(page[K])))
		}
		p, i := t.at(free)
		for i < pageSize && p.class[i] != 0 {
			i++
			free++
		}
		if i < pageSize {
			break
		}
	}
	for free > place {
		p, i := t.at(free)
		if i == 0 {
			q := t.pages[free/pageSize-1]
			p.key[0], p.until[0], p.class[0] = q.key[pageSize-1], q.until[pageSize-1], q.class[pageSize-1]
			free--
			continue
		}
		from := max(0, i-(free-place))
		copy(p.key[from+1:], p.key[from:i])
		copy(p.until[from+1:], p.until[from:i])
		copy(p.class[from+1:], p.class[from:i])
		free -= i - from
	}
}

// remove frees a place, by moving back the entries after it that are not at
// home.
func (t *slotTable[K]) remove(place int) {
	p, i := t.at(place)
	for next := place + 1; next < t.room(); next++ {
		q, j := t.at(next)
		if q.class[j] == 0 || t.home(q.key[j]) == next {
			break
		}
		p.key[i], p.until[i], p.class[i] = q.key[j], q.until[j], q.class[j]
		p, i = q, j
	}
	p.key[i], p.class[i] = ^K(0), 0
	t.used--
	t.found.known = false
}

// rebuild moves every entry that f, if there is one, says yes to, to its place
// on another scale.
func (t *slotTable[K]) rebuild(span uint64, f func(K, Slot) bool) {
	old := t.pages
	t.pages, t.span, t.used = make([]*page[K], 0, int(span/pageSize)+2), span, 0
	t.found.known = false
	var spare []*page[K]
	var to *page[K]
	next, end := 0, 0 // the first place that can be taken, and the first beyond the page to
	for n, p := range old {
		for i, h := range p.key {
			v := Slot{p.until[i], p.class[i]}
			if v.Class == 0 || f != nil && !f(t.secret.back(h), v) {
				continue
			}
			place := max(next, t.home(h))
			for place >= end {
				if len(spare) == 0 {
					spare = append(spare, new(page[K]))
				}
				to, spare = fresh(spare[len(spare)-1]), spare[:len(spare)-1]
				t.pages, end = append(t.pages, to), end+pageSize
			}
			j := place % pageSize
			to.key[j], to.until[j], to.class[j] = h, v.Until, v.Class
			t.used++
			next = place + 1
		}
		old[n], spare = nil, append(spare, p)
	}
}
