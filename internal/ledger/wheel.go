package ledger

import (
	"slices"
	"time"
)

// A wheel keeps when records are due, by slots of some seconds. A slot's
// records are in a chain of links, so that none waits with room for twice its
// records.
type wheel struct {
	slots map[uint32]uint32 // a slot's newest link, plus one
	links arena[link]
	free  uint32 // the first free link, plus one
	last  uint32 // slots up to this one are drained
}

// link is 64 bytes.
type link struct {
	next    uint32     // the link before it of the slot, plus one
	records [15]uint32 // plus one; 0 ends them
}

// slotSeconds is how late a verdict may lapse in memory. It bounds the number
// of slots.
const slotSeconds = 8

func (w *wheel) init() { w.slots = map[uint32]uint32{} }

// schedule sees to it that the record is looked at soon after a time.
func (w *wheel) schedule(r uint32, rec *record, at uint32) {
	slot := max(at/slotSeconds+1, w.last+1)
	if rec.wake != 0 && rec.wake <= slot {
		return // looked at before then anyway
	}
	rec.wake = slot
	w.add(slot, r)
}

func (w *wheel) add(slot, r uint32) {
	first := w.slots[slot]
	if first != 0 {
		// The last place of a link is taken last.
		if l := w.links.at(first - 1); l.records[len(l.records)-1] == 0 {
			l.records[slices.Index(l.records[:], 0)] = r + 1
			return
		}
	}
	at := w.free
	if at != 0 {
		w.free = w.links.at(at - 1).next
	} else {
		at = w.links.add() + 1
	}
	*w.links.at(at - 1) = link{next: first, records: [15]uint32{r + 1}}
	w.slots[slot] = at
}

func (w *wheel) drain(now time.Time, due func(r, slot uint32)) {
	current := seconds(now) / slotSeconds
	if current <= w.last {
		return
	}
	from := w.last + 1
	w.last = current
	if int(current-from) > len(w.slots) { // after a long sleep, or at the first call
		var passed []uint32
		for slot := range w.slots {
			if slot <= current {
				passed = append(passed, slot)
			}
		}
		slices.Sort(passed)
		for _, slot := range passed {
			w.drainSlot(slot, due)
		}
		return
	}
	for slot := from; slot <= current; slot++ {
		w.drainSlot(slot, due)
	}
}

func (w *wheel) drainSlot(slot uint32, due func(r, slot uint32)) {
	at := w.slots[slot]
	delete(w.slots, slot)
	for at != 0 {
		l := *w.links.at(at - 1)
		w.links.at(at-1).next, w.free = w.free, at
		at = l.next
		for _, r := range l.records {
			if r == 0 {
				break
			}
			due(r-1, slot)
		}
	}
}
