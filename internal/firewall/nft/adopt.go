package nft

import (
	"encoding/binary"
	"net/netip"

	"banmesh/internal/firewall/desired"
)

// adopt compares the bans that the last process left, by their checksums, with those
// wanted, and makes only the differences pending. Bans that end within the bucket that time
// is in cannot be told by their checksum, since some have ended: they are looked
// up one by one.
func (n *Firewall) adopt() error {
	now := n.second()
	n.inherited, n.foreign = true, true // the first check compares
	held := make(map[uint32][16]byte)
	sums, err := n.k.elements(mapChecksums)
	if isGone(err) {
		// The table went meanwhile, or is one that no version of ours made.
		n.have = nil
		n.contentsUnknown()
		return nil
	}
	if err != nil {
		return n.explain("reading checksums", err)
	}
	for _, e := range sums {
		if len(e.key) == 4 && len(e.verdict) == 16 {
			held[binary.NativeEndian.Uint32([]byte(e.key))] = [16]byte([]byte(e.verdict))
		}
	}
	differs := n.differing(held, now)
	wideDiffers, err := n.adoptBans(differs, now)
	if err != nil {
		return n.explain("looking bans up", err)
	}
	if len(differs) > 0 {
		n.checksumsLost, n.suspectAt = true, n.now()
	}
	n.forced = n.forced || len(n.pending) > 0
	for i := range n.wide {
		w := &n.wide[i]
		w.unknown = true
		if wideDiffers {
			w.dirty = true
			continue
		}
		// The last process worked its segments out of the same prefixes.
		if w.want, w.lapse, err = n.state.Segments(i == 0, now); err != nil {
			return err
		}
		w.held, w.live, w.dirty, w.unknown = w.want, len(w.want) > 0, false, false
	}
	return nil
}

// differing gives the buckets to come whose checksum is not the wanted one.
func (n *Firewall) differing(held map[uint32][16]byte, now desired.Second) map[uint32]bool {
	current := uint32(now) >> desired.BucketBits
	differs := make(map[uint32]bool)
	for b, st := range n.state.Checksums.All() {
		if b&^desired.BucketWide > current && held[b] != st.Bytes() {
			differs[b] = true
		}
	}
	for b := range held {
		if n.state.Checksums.Of(b).Count == 0 && b&^desired.BucketWide > current {
			differs[b] = true
		}
	}
	return differs
}

// mostLate bounds the bans that are looked up one by one, at a microsecond or
// two each.
const mostLate = 4_096

// adoptBans makes the bans of differing buckets pending, and those of the bucket
// that time is in whose element is not there. wideDiffers says that a prefix of
// an interval map is among them.
func (n *Firewall) adoptBans(differs map[uint32]bool, now desired.Second) (wideDiffers bool, err error) {
	current, late := uint32(now)>>desired.BucketBits, 0
	for b := range differs {
		wideDiffers = wideDiffers || b&desired.BucketWide != 0
	}
	n.state.Each(func(p netip.Prefix, v desired.Slot) bool {
		b := desired.BucketOf(p, v.Until)
		switch {
		case desired.KindOf(p) == desired.KindWide:
			wideDiffers = wideDiffers || b&^desired.BucketWide <= current
		case differs[b]:
			n.pending[p] = desired.Slot{}
		case b == current:
			if late++; late <= mostLate {
				data, lookup := n.k.get(mapNames[desired.KindOf(p)], appendKey(nil, p))
				if lookup == nil && len(data) == 4 && binary.NativeEndian.Uint32(data) == n.state.Classes[v.Class].ID {
					return true
				}
				if lookup != nil && !isGone(lookup) {
					err = lookup
					return false
				}
			}
			n.pending[p] = desired.Slot{}
		}
		return true
	})
	return wideDiffers, err
}
