package nft

import (
	"net/netip"
	"strings"

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
	if n.replaced {
		n.replaced = false
		d.What = append(d.What, "the table was replaced by another one")
	}
	return err
}

// verifyBans compares the maps with the bans: small ones whole, large ones by
// counting and, in the checks from this one on, ban by ban, since reading one of
// those back takes the kernel minutes.
func (n *Firewall) verifyBans(now desired.Second, d *firewall.Drift) error {
	if !n.inherited {
		return n.verifyMaps(now, d)
	}
	// A process that was killed leaves bans that it had not written down, and lacks some
	// that it had: no other program did that.
	var left firewall.Drift
	if err := n.verifyMaps(now, &left); err != nil {
		return err
	}
	if n.inherited = false; len(left.What) > 0 {
		n.log.Info("the bans that an earlier process left were others", "what", strings.Join(left.What, "; "))
	}
	return nil
}

func (n *Firewall) verifyMaps(now desired.Second, d *firewall.Drift) error {
	n.state.Sweep(now-countSlack, true)
	most, least := n.state.Counts(now + countSlack)
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		small, err := n.readable(k, readBack)
		if err != nil {
			return err
		}
		var m mapDifference
		if small {
			m, err = n.compareMap(k, now)
			n.walks[k] = mapWalk{}
		} else {
			n.walks[k].due = !n.inherited // checksums were compared just now
			if m, err = n.countMap(k, now, most[k], least[k]); m != (mapDifference{}) {
				n.reload, n.suspectAt = reloadForced, n.clock.at
			}
		}
		if err != nil {
			return err
		}
		m.told(d, mapNames[k])
	}
	return n.verifyWide(now, d)
}

// countMap compares a large map by counting.
func (n *Firewall) countMap(k desired.Kind, now desired.Second, most, least int) (m mapDifference, err error) {
	count, known, err := n.k.count(mapNames[k])
	if err != nil {
		return m, n.explain("counting bans", err)
	}
	if known {
		m.gone, m.strangers = max(least-int(count), 0), max(int(count)-most, 0)
	}
	if n.second() > now+countSlack {
		m.gone = 0 // bans ended while this process stood still
	}
	if !n.suspectAt.IsZero() {
		m.strangers = 0 // of an earlier process, and about to go
	}
	return m, nil
}

// verifyWide compares the interval maps with the prefixes that were written.
func (n *Firewall) verifyWide(now desired.Second, d *firewall.Drift) error {
	for i := range n.wide {
		w := &n.wide[i]
		if w.dirty {
			continue
		}
		count, known, err := n.k.count(wideNames[i])
		if err != nil {
			return n.explain("counting prefixes", err)
		}
		low, high := spread(w.held, now)
		other := known && (int(count) < low || int(count) > high)
		if !other && len(w.held) <= readBack {
			if other, err = n.compareWide(i, now); err != nil {
				return err
			}
		}
		if other {
			d.What = append(d.What, "prefixes in "+wideNames[i]+" were others")
			w.dirty, w.unknown = true, true
		}
	}
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
