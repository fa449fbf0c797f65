package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// The stamps in the kernel are right whenever they are there: the first change
// of a bucket takes its stamp out in the same transaction, and the next Check,
// or Close, writes it anew. So a process that is killed leaves its successor at
// worst a bucket or two to write again, and a ban costs no stamp of its own.

// soilStamps takes out the stamps of the buckets that some changes touch.
func (n *NFTables) soilStamps(ops []op) {
	var keys []uint32
	soil := func(p netip.Prefix, v slot) {
		if v.class == 0 {
			return
		}
		if b := bucketOf(p, v.until); !n.soiled[b] {
			n.soiled[b] = true
			keys = append(keys, b)
		}
	}
	for i := range ops {
		soil(ops[i].prefix, ops[i].old)
		soil(ops[i].prefix, ops[i].new)
	}
	if len(keys) == 0 {
		return
	}
	t := &n.k.tx
	if !n.can.destroy {
		// Which of them are there is not known, so all go.
		t.flushSet(n.config.Table, mapStamps)
		n.stampsLost = true
		return
	}
	n.listStamps(msgDestroySetElem, 0, keys, false)
}

// listStamps writes a message about the stamps of some buckets.
func (n *NFTables) listStamps(msg, flags uint16, buckets []uint32, full bool) {
	t := &n.k.tx
	var key [4]byte
	for chunk := range slices.Chunk(buckets, perMessage) {
		list := t.elements(msg, flags, n.config.Table, mapStamps)
		for _, b := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			binary.NativeEndian.PutUint32(key[:], b)
			t.value(unix.NFTA_SET_ELEM_KEY, key[:])
			if full {
				if end := bucketEnd(b); end != never {
					t.u64(unix.NFTA_SET_ELEM_TIMEOUT, n.timeout(end))
				}
				data := n.state.stamps.of(b).bytes()
				t.value(unix.NFTA_SET_ELEM_DATA, data[:])
			}
			t.unnest(one)
		}
		t.unnest(list)
		t.end()
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
	var buckets []uint32
	for b := range n.state.stamps.all() {
		if stillOpen(b, now) {
			buckets = append(buckets, b)
		}
	}
	n.listStamps(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, buckets, true)
	if err := n.flush(); err != nil {
		return n.explain("writing stamps", err)
	}
	n.stampsLost = false
	clear(n.soiled)
	return nil
}

// writeSoiled writes the stamps that are missing, once nothing is owed.
func (n *NFTables) writeSoiled(now second) error {
	if len(n.owed) > 0 || n.reload != reloadNone || n.wide[0].dirty || n.wide[1].dirty {
		return nil
	}
	if n.stampsLost {
		return n.writeStamps(now)
	}
	if len(n.soiled) == 0 {
		return nil
	}
	var buckets []uint32
	for b := range n.soiled {
		if stillOpen(b, now) && n.state.stamps.of(b).count > 0 {
			buckets = append(buckets, b)
		}
	}
	n.k.tx.begin()
	n.listStamps(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, buckets, true)
	if err := n.flush(); err != nil {
		n.stampsLost = true
		return n.explain("writing stamps", err)
	}
	clear(n.soiled)
	return nil
}

// stillOpen says whether bans of a bucket can still be in force.
func stillOpen(bucket uint32, now second) bool { return bucket&^bucketWide >= uint32(now)>>bucketBits }

// adopt compares what the last process left, by its stamps, with what is
// wanted, and owes only what differs. Bans that end within the bucket that time
// is in cannot be told by their stamp, since some have ended: they are looked
// up one by one.
func (n *NFTables) adopt() error {
	now := n.second()
	held := make(map[uint32][16]byte)
	stamps, err := n.k.elements(mapStamps)
	if isGone(err) {
		// The table went meanwhile, or is one that no version of ours made.
		n.have, n.reload = nil, reloadForced
		for i := range n.wide {
			n.wide[i].dirty, n.wide[i].unknown = true, true
		}
		return nil
	}
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
	for b, st := range n.state.stamps.all() {
		if b&^bucketWide > current && held[b] != st.bytes() {
			differs[b] = true
		}
	}
	for b := range held {
		if n.state.stamps.of(b).count == 0 && b&^bucketWide > current {
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
