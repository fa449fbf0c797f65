package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// verifyTable compares everything but the bans with the wanted state, and
// puts it right.
func (n *Firewall) verifyTable(d *firewall.Drift) error {
	n.have = nil
	what, err := n.structure()
	d.What = append(d.What, what...)
	d.Changed = d.Changed || len(what) > 0
	return err
}

// verifyBans compares the maps with the bans by counting and by samples, never
// by reading them back, which takes the kernel minutes where they are large.
func (n *Firewall) verifyBans(now desired.Second, d *firewall.Drift, moved bool) error {
	n.state.Sweep(now-countSlack, true)
	suspect := !n.suspectAt.IsZero()
	n.suspectAt = time.Time{}
	most, least := n.state.Counts(now + countSlack)
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		count, known, err := n.k.count(mapNames[k])
		if err != nil {
			return n.explain("counting bans", err)
		}
		other, err := n.sample(k, now)
		if err != nil {
			return err
		}
		switch {
		case known && int(count) < least[k]:
			d.What = append(d.What, fmt.Sprintf("%d bans were gone from %s", least[k]-int(count), mapNames[k]))
			n.reload = reloadForced
		case other:
			d.What = append(d.What, "bans in "+mapNames[k]+" were others")
			n.reload = reloadForced
		case known && int(count) > most[k]:
			d.What = append(d.What, fmt.Sprintf("%d bans in %s were not wanted", int(count)-most[k], mapNames[k]))
			fallthrough
		case !known && suspect:
			if err := n.replaceMap(k, now); err != nil {
				return err
			}
		}
	}
	for i := range n.wide {
		w := &n.wide[i]
		if !moved || w.dirty {
			continue
		}
		count, known, err := n.k.count(wideNames[i])
		if err != nil {
			return n.explain("counting prefixes", err)
		}
		low, high := spread(w.held, now)
		if known && (int(count) < low || int(count) > high) {
			d.What = append(d.What, "prefixes in "+wideNames[i]+" were others")
			w.dirty, w.unknown = true, true
		}
	}
	d.Changed = d.Changed || len(d.What) > 0
	return nil
}

// spread gives how many segments there are at least and at most, with those
// that end about now. The kernel counts an interval as one, and may overlook
// one that ends where the addresses end.
func spread(segments []desired.Segment, now desired.Second) (low, high int) {
	for _, s := range segments {
		if s.Slot.Until > now+countSlack && s.To.Next().IsValid() {
			low++
		}
		if s.Slot.Until > now-countSlack {
			high++
		}
	}
	return low, high
}

// sample looks up some bans of a map, others each time, and says whether one
// is not as it ought to be.
func (n *Firewall) sample(k desired.Kind, now desired.Second) (other bool, err error) {
	left := sampled
	n.state.EachOf(k, func(p netip.Prefix, v desired.Slot) bool {
		if v.Until <= now+countSlack {
			left--
			return left > 0
		}
		var data []byte
		data, err = n.k.get(mapNames[k], appendKey(nil, p))
		switch {
		case isGone(err):
			other, err = true, nil
		case err != nil:
			err = n.explain("looking a ban up", err)
			return false
		case len(data) != 4 || binary.NativeEndian.Uint32(data) != n.state.Classes[v.Class].ID:
			other = true
		}
		left--
		return left > 0 && !other
	})
	return other, err
}

// replaceMap empties a map of strangers and writes its bans in the same
// transaction, so that nobody slips through meanwhile. It costs seconds at a
// million, which is why it is the last resort.
func (n *Firewall) replaceMap(k desired.Kind, now desired.Second) error {
	if err := n.dropChecksums(); err != nil {
		return err
	}
	n.clock.at = n.now()
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapNames[k])
	var key [16]byte
	l := n.k.tx.list(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapNames[k])
	n.state.EachOf(k, func(p netip.Prefix, v desired.Slot) bool {
		if v.Until > now {
			l.next()
			n.encodeElement(appendKey(key[:0], p), v)
		}
		return true
	})
	l.end()
	err := n.explain("replacing "+mapNames[k], n.flush())
	n.k.tx.b = nil // a buffer of this size is not kept
	return err
}
