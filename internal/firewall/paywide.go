package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// planWide works out which segments the interval maps are to hold, and whether
// the base chain has to look them up. It writes nothing.
func (n *NFTables) planWide(now second) error {
	for i := range n.wide {
		w := &n.wide[i]
		if w.lapse != 0 && w.lapse <= now {
			w.dirty = true
		}
		if !w.dirty {
			continue
		}
		want, lapse, err := n.state.segments(i == 0, now)
		if err != nil {
			return err
		}
		w.want, w.lapse, w.live = want, lapse, len(want) > 0
	}
	return nil
}

// payWide writes the interval maps that changed. The kernel walks the whole
// tree for each transaction, so all changes of a map go into one: the
// difference where little changed, everything where the difference is refused.
func (n *NFTables) payWide(now second) error {
	for i := range n.wide {
		w := &n.wide[i]
		if !w.dirty {
			continue
		}
		if err := n.writeWide(i, now); err != nil {
			return n.explain("writing prefixes", err)
		}
		w.held, w.want, w.dirty = w.want, nil, false
		n.stampsLost = true
	}
	return nil
}

func (n *NFTables) writeWide(i int, now second) error {
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
func difference(have, want []segment, now second) (gone, came []segment) {
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(want) == 0, len(have) > 0 && have[0].from.Less(want[0].from):
			if have[0].slot.until > now {
				gone = append(gone, have[0])
			}
			have = have[1:]
		case len(have) == 0, want[0].from.Less(have[0].from):
			came, want = append(came, want[0]), want[1:]
		default:
			if have[0] != want[0] {
				if have[0].slot.until > now {
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
func (n *NFTables) encodeSegments(msg uint16, name string, segments []segment) {
	t := &n.k.tx
	for chunk := range slices.Chunk(segments, perMessage/2) {
		flags := uint16(0)
		if msg == unix.NFT_MSG_NEWSETELEM {
			flags = unix.NLM_F_CREATE
		}
		list := t.elements(msg, flags, n.config.Table, name)
		for _, s := range chunk {
			if msg == unix.NFT_MSG_NEWSETELEM {
				n.encodeElement(s.from.AsSlice(), s.slot, 0)
			} else {
				one := t.nest(unix.NFTA_LIST_ELEM)
				t.value(unix.NFTA_SET_ELEM_KEY, s.from.AsSlice())
				t.unnest(one)
			}
			if end := s.to.Next(); end.IsValid() {
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

// encodeStamps writes the stamps of some buckets.
func (n *NFTables) encodeStamps(buckets map[uint32]bool, now second) {
	t := &n.k.tx
	var keys, live []uint32
	for b := range buckets {
		if b&^bucketWide < uint32(now)>>bucketBits {
			continue
		}
		keys = append(keys, b)
		if n.state.stamps[b].count > 0 {
			live = append(live, b)
		}
	}
	var key [4]byte
	list := func(msg, flags uint16, buckets []uint32, full bool) {
		for chunk := range slices.Chunk(buckets, perMessage) {
			at := t.elements(msg, flags, n.config.Table, mapStamps)
			for _, b := range chunk {
				one := t.nest(unix.NFTA_LIST_ELEM)
				binary.NativeEndian.PutUint32(key[:], b)
				t.value(unix.NFTA_SET_ELEM_KEY, key[:])
				if full {
					if end := bucketEnd(b); end != never {
						t.u64(unix.NFTA_SET_ELEM_TIMEOUT, n.timeout(end))
					}
					data := n.state.stamps[b].bytes()
					t.value(unix.NFTA_SET_ELEM_DATA, data[:])
				}
				t.unnest(one)
			}
			t.unnest(at)
			t.end()
		}
	}
	if n.can.destroy {
		list(msgDestroySetElem, 0, keys, false)
		list(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, live, true)
	} else {
		// Without DESTROY a stamp that may or may not be there cannot be replaced
		// in the same transaction, so all go and come back at the end.
		n.stampsLost = true
	}
}

// dropStamps says in the kernel that nothing is known of its bans: what is
// about to be written takes more than one transaction.
func (n *NFTables) dropStamps() error {
	n.stampsLost = true
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapStamps)
	return n.explain("dropping stamps", n.flush())
}

// writeStamps writes the stamps of all bans.
func (n *NFTables) writeStamps(now second) error {
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapStamps)
	t := &n.k.tx
	buckets := make([]uint32, 0, len(n.state.stamps))
	for b := range n.state.stamps {
		if b&^bucketWide >= uint32(now)>>bucketBits {
			buckets = append(buckets, b)
		}
	}
	var key [4]byte
	for chunk := range slices.Chunk(buckets, perMessage) {
		at := t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapStamps)
		for _, b := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			binary.NativeEndian.PutUint32(key[:], b)
			t.value(unix.NFTA_SET_ELEM_KEY, key[:])
			if end := bucketEnd(b); end != never {
				t.u64(unix.NFTA_SET_ELEM_TIMEOUT, n.timeout(end))
			}
			data := n.state.stamps[b].bytes()
			t.value(unix.NFTA_SET_ELEM_DATA, data[:])
			t.unnest(one)
		}
		t.unnest(at)
		t.end()
	}
	if err := n.flush(); err != nil {
		return n.explain("writing stamps", err)
	}
	n.stampsLost = false
	return nil
}

// adopt compares what the last process left, by its stamps, with what is
// wanted, and owes only what differs. Bans that end within the bucket that time
// is in cannot be told by their stamp, since some have ended: they are looked
// up one by one.
func (n *NFTables) adopt() error {
	now := n.second()
	held := make(map[uint32][16]byte)
	stamps, err := n.k.elements(mapStamps)
	if err != nil {
		return n.explain("reading stamps", err)
	}
	for _, e := range stamps {
		if len(e.key) == 4 && len(e.verdict) == 16 {
			held[binary.NativeEndian.Uint32([]byte(e.key))] = [16]byte([]byte(e.verdict))
		}
	}
	current := uint32(now) >> bucketBits
	differs := make(map[uint32]bool)
	for b, st := range n.state.stamps {
		if b&^bucketWide > current && held[b] != st.bytes() {
			differs[b] = true
		}
	}
	for b := range held {
		if _, ok := n.state.stamps[b]; !ok && b&^bucketWide > current {
			differs[b] = true
		}
	}
	wideDiffers, late := false, 0
	for b := range differs {
		wideDiffers = wideDiffers || b&bucketWide != 0
	}
	var failed error
	const mostLate = 4_096 // looked up at a microsecond or two each
	n.state.each(func(p netip.Prefix, v slot) bool {
		b := bucketOf(p, v.until)
		switch {
		case kindOf(p) == kindWide:
			wideDiffers = wideDiffers || b&^bucketWide <= current
		case differs[b]:
			n.owed[p] = slot{}
		case b == current:
			if late++; late <= mostLate {
				data, err := n.k.get(mapNames[kindOf(p)], appendKey(nil, p))
				if err == nil && len(data) == 4 && binary.NativeEndian.Uint32(data) == n.state.classes[v.class].id {
					return true
				}
				if err != nil && !isGone(err) {
					failed = err
					return false
				}
			}
			n.owed[p] = slot{}
		}
		return true
	})
	if failed != nil {
		return n.explain("looking bans up", failed)
	}
	if len(differs) > 0 {
		n.stampsLost, n.suspectAt = true, n.now()
	}
	n.forced = n.forced || len(n.owed) > 0
	for i := range n.wide {
		w := &n.wide[i]
		w.unknown = true
		if wideDiffers {
			w.dirty = true
			continue
		}
		// The last process worked its segments out of the same prefixes.
		if w.want, w.lapse, err = n.state.segments(i == 0, now); err != nil {
			return err
		}
		w.held, w.live, w.dirty, w.unknown = w.want, len(w.want) > 0, false, false
	}
	return nil
}
