package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

const (
	// readBack is the size up to which a map is read back and compared ban by ban
	// when somebody else wrote. The kernel takes 3 ms for it, and beyond this
	// size a time that grows faster than the size.
	readBack = 4_096
	// readBackOnce is the same where it is done once, after a start or a cure: 22 ms.
	readBackOnce = 16_384
	// lateMost is how much earlier or later than wanted a ban may end: the
	// kernel's timers run by another clock than the one that is set by the
	// network. A thousandth of the ban's length comes on top.
	lateMost = time.Minute
)

// A mapDifference counts the bans of one map that are not as they are wanted.
type mapDifference struct {
	gone      int // wanted, and not there
	other     int // there with another scope or another end
	strangers int // there, and not wanted
}

// told adds the difference of a map to a drift.
func (m mapDifference) told(d *firewall.Drift, name string) {
	if m.gone > 0 {
		d.What = append(d.What, fmt.Sprintf("%d bans were gone from %s", m.gone, name))
	}
	if m.other > 0 {
		d.What = append(d.What, fmt.Sprintf("%d bans in %s were others", m.other, name))
	}
	if m.strangers > 0 {
		d.What = append(d.What, fmt.Sprintf("%d bans in %s were not wanted", m.strangers, name))
	}
}

// readable says whether a map is small enough to be read back.
func (n *Firewall) readable(k desired.Kind, most int) (bool, error) {
	count, known, err := n.k.count(mapNames[k])
	if err != nil {
		return false, n.explain("counting bans", err)
	}
	all, _ := n.state.Counts(0)
	return all[k] <= most && (!known || int(count) <= 2*most), nil
}

// compareMap reads a map back and makes each ban that is not as wanted pending,
// and each that nobody wants pending to be deleted.
func (n *Firewall) compareMap(k desired.Kind, now desired.Second) (m mapDifference, err error) {
	seen := make(map[netip.Prefix]bool)
	wrong := func(p netip.Prefix) {
		n.forced = true
		if _, ok := n.pending[p]; !ok {
			n.pending[p] = desired.Slot{}
		}
	}
	err = n.k.eachElement(mapNames[k], func(attrs []byte) {
		p, ok := prefixOf(k, readElement(attrs).key)
		if !ok || seen[p] {
			return
		}
		seen[p] = true
		switch v := n.state.Get(p); {
		case v.Class == 0:
			m.strangers++
			wrong(p)
		case v.Until > now+countSlack && !n.asWanted(attrs, v):
			m.other++
			wrong(p)
		}
	})
	if err != nil {
		return m, n.explain("reading "+mapNames[k], err)
	}
	// Whoever stood still while the map was read misses no ban that ended meanwhile.
	now = max(now, n.second())
	n.state.EachOf(k, func(p netip.Prefix, v desired.Slot) bool {
		if v.Until <= now+countSlack || seen[p] {
			return true
		}
		// A map that the kernel resizes meanwhile may be listed without an element
		// that it has.
		right := false
		err = n.k.lookup(mapNames[k], appendKey(nil, p), func(attrs []byte) { right = n.asWanted(attrs, v) })
		if err != nil && !isGone(err) {
			err = n.explain("looking a ban up", err)
			return false
		}
		if err = nil; !right {
			m.gone++
			wrong(p)
		}
		return true
	})
	return m, err
}

// prefixOf reads the key of an element.
func prefixOf(k desired.Kind, key string) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice([]byte(key))
	if !ok || a.Is4() != (k == desired.KindHost4) {
		return netip.Prefix{}, false
	}
	bits := a.BitLen()
	if k == desired.KindNet6 {
		bits = 64
	}
	p := netip.PrefixFrom(a, bits)
	return p, desired.Canonical(p)
}

// asWanted says whether an element has the scope and the end of a slot.
func (n *Firewall) asWanted(attrs []byte, v desired.Slot) bool {
	var left, length time.Duration
	var class []byte
	for a, rest, ok := nextAttr(attrs); ok; a, rest, ok = nextAttr(rest) {
		switch a.kind {
		case unix.NFTA_SET_ELEM_TIMEOUT:
			length = time.Duration(a.u64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPIRATION:
			left = time.Duration(a.u64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_DATA:
			class = find(a.data, unix.NFTA_DATA_VALUE)
		}
	}
	if len(class) != 4 || binary.NativeEndian.Uint32(class) != n.state.Classes[v.Class].ID || (v.Until == desired.Never) != (length == 0) {
		return false
	}
	late := left - v.Until.Time().Sub(n.clock.at)
	return length == 0 || late.Abs() <= lateMost+length/1000
}

// compareWide says whether the prefixes of an interval map are other ones than
// those that were written. Those that end about now are not looked at closer.
func (n *Firewall) compareWide(i int, now desired.Second) (other bool, err error) {
	var want []element
	for _, s := range n.wide[i].held {
		if s.Slot.Until <= now+countSlack {
			return false, nil
		}
		want = append(want, element{key: string(s.From.AsSlice()), verdict: markBytes(n.state.Classes[s.Slot.Class].ID)})
		if end := s.To.Next(); end.IsValid() {
			want = append(want, element{key: string(end.AsSlice()), end: true})
		}
	}
	slices.SortFunc(want, compareElements)
	have, err := n.k.elements(wideNames[i])
	if err != nil {
		return false, n.explain("reading "+wideNames[i], err)
	}
	return !slices.Equal(have, want), nil
}

// removeStrangers takes bans that nobody wants out of maps whose wanted bans are
// all written: those that an earlier process left, and those that a cure of
// unknown contents left. Changes by other programs were told before.
func (n *Firewall) removeStrangers(now desired.Second) error {
	waits := n.clock.at.Sub(n.suspectAt) <= countSlack*time.Second
	n.state.Sweep(now-countSlack, true)
	most, _ := n.state.Counts(0)
	removed, later := 0, false
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		small, err := n.readable(k, readBackOnce)
		if err != nil {
			return err
		}
		if small {
			m, err := n.compareMap(k, now)
			if err != nil {
				return err
			}
			removed += m.strangers
			continue
		}
		// Bans that have just ended are counted still.
		if later = later || waits; waits {
			continue
		}
		count, known, err := n.k.count(mapNames[k])
		if err != nil {
			return n.explain("counting bans", err)
		}
		if !known || int(count) > most[k] {
			removed += max(int(count)-most[k], 0)
			if err := n.replaceMap(k, now); err != nil {
				return err
			}
		}
	}
	if !later {
		n.suspectAt = time.Time{}
	}
	if removed > 0 {
		n.log.Info("removed bans from the kernel that nobody wants", "bans", removed)
	}
	return nil
}
