package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall/desired"
)

const (
	// perTransaction is how many bans go into one transaction: the fewest CPU a
	// ban, and other users of nftables never wait longer than about a
	// millisecond for the kernel's lock.
	perTransaction = 2_000
	// perMessage keeps a list of elements, at most 52 bytes each, within the 64
	// KiB that a netlink attribute's length can say. More would be lost without
	// an error.
	perMessage = 1_200
)

// op is a change of one element.
type op struct {
	prefix netip.Prefix
	kind   desired.Kind
	old    desired.Slot // believed to be in the kernel
	new    desired.Slot
}

// write writes some changes together, and where the kernel refuses them, in
// ever smaller parts until the one is found that it refuses. Changes that were written
// are no longer pending.
func (n *Firewall) write(ops []op, force, sums bool) []error {
	err := n.writeOnce(ops, force, sums)
	if err == nil {
		if len(n.pending) > 0 {
			for _, o := range ops {
				delete(n.pending, o.prefix)
			}
		}
		return nil
	}
	if sums {
		if err := n.dropChecksums(); err != nil {
			return []error{err}
		}
	}
	switch {
	case !refusable(err):
		return []error{n.explain("writing bans", err)}
	case !force:
		return n.write(ops, true, false)
	case len(ops) == 1:
		return []error{fmt.Errorf("ban of %s: %w", ops[0].prefix, n.explain("writing", err))}
	}
	half := len(ops) / 2
	return append(n.write(ops[:half], force, false), n.write(ops[half:], force, false)...)
}

// refusable says whether an error can be about single elements.
func refusable(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EBUSY)
}

func (n *Firewall) writeOnce(ops []op, force, sums bool) error {
	gone := func(o *op) bool { return o.old.Class != 0 || force }
	came := func(o *op) bool { return o.new.Class != 0 }
	if force && !n.can.destroy {
		// This kernel cannot delete an element that may not be there, so the deletions go
		// first and alone, one by one.
		for i := range ops {
			n.k.tx.begin()
			n.encodeKeys(unix.NFT_MSG_DELSETELEM, ops[i].kind, ops[i:i+1], gone)
			if err := n.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	var leave, come [desired.KindWide]bool // which kinds have any
	for i := range ops {
		o := &ops[i]
		leave[o.kind] = leave[o.kind] || gone(o)
		come[o.kind] = come[o.kind] || came(o)
	}
	n.k.tx.begin()
	for k := range desired.KindWide {
		switch {
		case !leave[k]:
		case n.can.destroy:
			n.encodeKeys(msgDestroySetElem, k, ops, gone)
		case !force:
			n.encodeElements(k, ops, gone, true)
			n.encodeKeys(unix.NFT_MSG_DELSETELEM, k, ops, gone)
		}
		if come[k] {
			n.encodeElements(k, ops, came, false)
		}
	}
	if sums {
		n.dropDirty(ops)
	}
	if slices.Contains(come[:], true) {
		return n.flushChange()
	}
	return n.flush()
}

// msgDestroySetElem is NFT_MSG_DESTROYSETELEM: delete, if it is there.
const msgDestroySetElem = 30

var mapNames = [...]string{desired.KindHost4: mapHost4, desired.KindHost6: mapHost6, desired.KindNet6: mapNet6}

// appendKey appends the bytes that are p's key in its map.
func appendKey(b []byte, p netip.Prefix) []byte {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return append(b, a[:]...)
	}
	a := p.Addr().As16()
	return append(b, a[:]...)
}

// encodeKeys writes a deletion of those elements of one kind that pick says
// yes to.
func (n *Firewall) encodeKeys(msg uint16, k desired.Kind, ops []op, pick func(*op) bool) {
	var key [16]byte
	l := n.k.tx.list(msg, 0, n.config.Table, mapNames[k])
	for i := range ops {
		if o := &ops[i]; o.kind == k && pick(o) {
			l.next()
			n.k.tx.key(appendKey(key[:0], o.prefix))
		}
	}
	l.end()
}

// encodeElements writes an addition of those elements of one kind that pick
// says yes to: as they are to be, or, for the sake of deleting them where they
// may have ended, as they were.
func (n *Firewall) encodeElements(k desired.Kind, ops []op, pick func(*op) bool, asTheyWere bool) {
	var key [16]byte
	l := n.k.tx.list(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapNames[k])
	for i := range ops {
		o := &ops[i]
		if o.kind != k || !pick(o) {
			continue
		}
		v := o.new
		if asTheyWere {
			v = o.old
		}
		l.next()
		n.encodeElement(appendKey(key[:0], o.prefix), v)
	}
	l.end()
}

// encodeElement writes one element of a map of bans.
func (n *Firewall) encodeElement(key []byte, v desired.Slot) {
	n.k.tx.element(key, v.Until != desired.Never, n.timeout(v.Until), n.state.Classes[v.Class].ID)
}

// timeout gives the milliseconds until a time, at least one.
func (n *Firewall) timeout(until desired.Second) uint64 {
	left := int64(until)*1000 - n.clock.at.UnixMilli()
	if n.clock.at.Nanosecond()%int(time.Millisecond) != 0 {
		left-- // of the present, too, the part of a millisecond counts
	}
	return uint64(max(left, 1))
}
