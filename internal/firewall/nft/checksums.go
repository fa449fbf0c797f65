package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall/desired"
)

// The checksums in the kernel are right whenever they are there: the first change
// of a bucket takes its checksum out in the same transaction, and the next Check,
// or Close, writes it anew. So a process that is killed leaves its successor at
// worst a bucket or two to write again, and a ban costs no checksum of its own.

// dropDirty takes out the checksums of the buckets that some changes touch.
func (n *Firewall) dropDirty(ops []op) {
	var keys []uint32
	dirty := func(p netip.Prefix, v desired.Slot) {
		if v.Class == 0 {
			return
		}
		if b := desired.BucketOf(p, v.Until); !n.dirty[b] {
			n.dirty[b] = true
			keys = append(keys, b)
		}
	}
	for i := range ops {
		dirty(ops[i].prefix, ops[i].old)
		dirty(ops[i].prefix, ops[i].new)
	}
	if len(keys) == 0 {
		return
	}
	t := &n.k.tx
	if !n.can.destroy {
		// Which of them are there is not known, so all go.
		t.flushSet(n.config.Table, mapChecksums)
		n.checksumsLost = true
		return
	}
	n.listChecksums(msgDestroySetElem, 0, keys, false)
}

// listChecksums writes a message about the checksums of some buckets.
func (n *Firewall) listChecksums(msg, flags uint16, buckets []uint32, full bool) {
	t := &n.k.tx
	var key [4]byte
	for chunk := range slices.Chunk(buckets, perMessage) {
		list := t.elements(msg, flags, n.config.Table, mapChecksums)
		for _, b := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			binary.NativeEndian.PutUint32(key[:], b)
			t.value(unix.NFTA_SET_ELEM_KEY, key[:])
			if full {
				if end := desired.BucketEnd(b); end != desired.Never {
					t.u64(unix.NFTA_SET_ELEM_TIMEOUT, n.timeout(end))
				}
				data := n.state.Checksums.Of(b).Bytes()
				t.value(unix.NFTA_SET_ELEM_DATA, data[:])
			}
			t.unnest(one)
		}
		t.unnest(list)
		t.end()
	}
}

// dropChecksums says in the kernel that nothing is known of its bans: the writing that is
// about to be written takes more than one transaction.
func (n *Firewall) dropChecksums() error {
	n.checksumsLost = true
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapChecksums)
	return n.explain("dropping checksums", n.flush())
}

// writeChecksums writes the checksums of all bans.
func (n *Firewall) writeChecksums(now desired.Second) error {
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapChecksums)
	var buckets []uint32
	for b := range n.state.Checksums.All() {
		if stillOpen(b, now) {
			buckets = append(buckets, b)
		}
	}
	n.listChecksums(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, buckets, true)
	if err := n.flush(); err != nil {
		return n.explain("writing checksums", err)
	}
	n.checksumsLost = false
	clear(n.dirty)
	return nil
}

// writeDirty writes the checksums that are missing, once nothing is pending.
func (n *Firewall) writeDirty(now desired.Second) error {
	if len(n.pending) > 0 || n.reload != reloadNone || n.wide[0].dirty || n.wide[1].dirty {
		return nil
	}
	if n.checksumsLost {
		return n.writeChecksums(now)
	}
	if len(n.dirty) == 0 {
		return nil
	}
	var buckets []uint32
	for b := range n.dirty {
		if stillOpen(b, now) && n.state.Checksums.Of(b).Count > 0 {
			buckets = append(buckets, b)
		}
	}
	n.k.tx.begin()
	n.listChecksums(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, buckets, true)
	if err := n.flush(); err != nil {
		n.checksumsLost = true
		return n.explain("writing checksums", err)
	}
	clear(n.dirty)
	return nil
}

// stillOpen says whether bans of a bucket can still be in force.
func stillOpen(bucket uint32, now desired.Second) bool {
	return bucket&^desired.BucketWide >= uint32(now)>>desired.BucketBits
}
