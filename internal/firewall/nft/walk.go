package nft

import (
	"net/netip"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// walkMost is how many bans of large maps one check looks up: 20 to 40 ms each second,
// until all of 100,000 were looked at after 25 checks.
const walkMost = 4_096

// A mapWalk looks up each ban of a map that is too large to be read back, some at each
// check. Counting does not see that one ban is gone and another one is there for it.
type mapWalk struct {
	keys []byte // of the bans that are still to be looked up
	due  bool   // somebody wrote since the walk began: it is done again
}

// walkSome goes on with the walks. The first ban that is not as wanted ends a walk: the
// map is written anew and counted, so that strangers go too.
func (n *Firewall) walkSome(now desired.Second, d *firewall.Drift) error {
	left := walkMost
	for k := desired.KindHost4; k <= desired.KindNet6; k++ {
		w := &n.walks[k]
		if len(w.keys) == 0 && w.due {
			w.due = false
			n.state.EachOf(k, func(p netip.Prefix, _ desired.Slot) bool {
				w.keys = appendKey(w.keys, p)
				return true
			})
		}
		m, err := n.walk(k, now, &left)
		if err != nil {
			return err
		}
		if m != (mapDifference{}) {
			w.keys, w.due = nil, false
			n.reload, n.suspectAt = reloadForced, n.clock.at
			m.told(d, mapNames[k])
		}
	}
	return nil
}

// walk looks up bans of one map, as many as are left.
func (n *Firewall) walk(k desired.Kind, now desired.Second, left *int) (m mapDifference, err error) {
	w := &n.walks[k]
	size := 16
	if k == desired.KindHost4 {
		size = 4
	}
	for ; len(w.keys) >= size && *left > 0; *left-- {
		key := w.keys[len(w.keys)-size:]
		w.keys = w.keys[:len(w.keys)-size]
		p, ok := prefixOf(k, string(key))
		v := n.state.Get(p)
		if !ok || v.Class == 0 || v.Until <= now+countSlack {
			continue // it ended, or was lifted
		}
		if _, waits := n.pending[p]; waits {
			continue
		}
		right := false
		err := n.k.lookup(mapNames[k], key, func(attrs []byte) { right = n.asWanted(attrs, v) })
		switch {
		case isGone(err):
			m.gone++
		case err != nil:
			return m, n.explain("looking a ban up", err)
		case !right:
			m.other++
		}
	}
	if len(w.keys) == 0 {
		w.keys = nil
	}
	return m, nil
}
