package nft

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall/desired"
)

var wideNames = [...]string{mapWide4, mapWide6}

// wideMap has the segments that an interval map holds, and those that it ought to.
type wideMap struct {
	held    []desired.Segment
	want    []desired.Segment
	dirty   bool
	unknown bool // held is not known to be right
	// planned says that want is worked out; dirty alone waits for the rest to
	// end, since working it out for many prefixes takes a while.
	planned bool
	rest    time.Time
	lapse   desired.Second // when a nested prefix ends before its outer one
	live    bool           // the base chain looks it up
}

// planWide works out which segments the interval maps are to hold, and whether
// the base chain has to look them up. It writes nothing.
func (n *Firewall) planPrefixes(now desired.Second) error {
	for i := range n.wide {
		w := &n.wide[i]
		if w.lapse != 0 && w.lapse <= now {
			w.dirty = true
		}
		if !w.dirty || n.clock.at.Before(w.rest) {
			continue
		}
		began := time.Now()
		want, lapse, err := n.state.Segments(i == 0, now)
		if err != nil {
			return err
		}
		if rest := min(wideRest*time.Since(began), wideRestMost); rest > wideSoon {
			w.rest = n.clock.at.Add(rest)
		}
		w.want, w.lapse, w.live, w.planned = want, lapse, len(want) > 0, true
	}
	return nil
}

const (
	// wideRest keeps working out segments to a tenth of the time; changes
	// meanwhile are written together by a later call, at the latest by the next
	// Check but one.
	wideRest     = 10
	wideRestMost = 2 * time.Second
	// wideSoon is how short a rest is not worth taking.
	wideSoon = 5 * time.Millisecond
)

// flushPrefixes writes the interval maps that changed. The kernel walks the whole
// tree for each transaction, so all changes of a map go into one: the
// difference where little changed, everything where the difference is refused.
func (n *Firewall) flushPrefixes(now desired.Second) error {
	for i := range n.wide {
		w := &n.wide[i]
		if !w.planned {
			continue
		}
		if err := n.writePrefixes(i, now); err != nil {
			return n.explain("writing prefixes", err)
		}
		w.held, w.want, w.dirty, w.planned = w.want, nil, false, false
		n.checksumsLost = true
	}
	return nil
}

func (n *Firewall) writePrefixes(i int, now desired.Second) error {
	w := &n.wide[i]
	name := wideNames[i]
	if !w.unknown {
		gone, came := difference(w.held, w.want, now)
		if len(gone)+len(came) == 0 {
			return nil
		}
		if len(gone)+len(came) < len(w.want)/2+16 {
			n.k.tx.begin()
			n.encodeSegments(unix.NFT_MSG_DELSETELEM, name, gone)
			n.encodeSegments(unix.NFT_MSG_NEWSETELEM, name, came)
			err := n.flush()
			if err == nil || !refusable(err) {
				return err
			}
		}
	}
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, name)
	n.encodeSegments(unix.NFT_MSG_NEWSETELEM, name, w.want)
	err := n.flush()
	if err == nil {
		w.unknown = false
	}
	return err
}

// difference gives the segments that only one of two sorted lists has. Those
// that have ended need no deletion.
func difference(have, want []desired.Segment, now desired.Second) (gone, came []desired.Segment) {
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0, len(have) > 0 && have[0].From.Less(want[0].From):
			if have[0].Slot.Until > now {
				gone = append(gone, have[0])
			}
			have = have[1:]
		case len(have) == 0, want[0].From.Less(have[0].From):
			came, want = append(came, want[0]), want[1:]
		default:
			if have[0] != want[0] {
				if have[0].Slot.Until > now {
					gone = append(gone, have[0])
				}
				came = append(came, want[0])
			}
			have, want = have[1:], want[1:]
		}
	}
	return gone, came
}

// encodeSegments writes additions or deletions of ranges, each as its start and
// the address after its end; a range up to the last address has no end.
func (n *Firewall) encodeSegments(msg uint16, name string, segments []desired.Segment) {
	t := &n.k.tx
	for chunk := range slices.Chunk(segments, perMessage/2) {
		flags := uint16(0)
		if msg == unix.NFT_MSG_NEWSETELEM {
			flags = unix.NLM_F_CREATE
		}
		list := t.elements(msg, flags, n.config.Table, name)
		for _, s := range chunk {
			if msg == unix.NFT_MSG_NEWSETELEM {
				n.encodeElement(s.From.AsSlice(), s.Slot)
			} else {
				one := t.nest(unix.NFTA_LIST_ELEM)
				t.value(unix.NFTA_SET_ELEM_KEY, s.From.AsSlice())
				t.unnest(one)
			}
			if end := s.To.Next(); end.IsValid() {
				one := t.nest(unix.NFTA_LIST_ELEM)
				t.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
				t.value(unix.NFTA_SET_ELEM_KEY, end.AsSlice())
				t.unnest(one)
			}
		}
		t.unnest(list)
		t.end()
	}
}
