package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
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
	kind   kind
	old    slot // what the kernel is believed to hold
	new    slot
}

// reopen replaces a socket whose answers can no longer be trusted.
func (n *NFTables) reopen() error {
	k, err := openKernel(n.config.Table)
	if err != nil {
		return err
	}
	_ = n.k.close()
	n.k = k
	n.have, n.foreign, n.forced = nil, true, true
	return nil
}

// pay writes all that is owed. What fails stays owed.
func (n *NFTables) pay(ctx context.Context) error {
	n.clock.at = n.now()
	now := secondOf(n.clock.at)
	lapsed, err := n.state.lapse(now)
	if err != nil {
		return err
	}
	for _, p := range lapsed {
		n.owe(p, n.state.get(p))
		n.forced = true
	}
	if err := n.planWide(now); err != nil {
		return err
	}
	if _, err := n.structure(); err != nil {
		return err
	}
	var errs []error
	if n.reload != reloadNone {
		errs = append(errs, n.loadAll(ctx, now))
	} else if len(n.owed) > 0 {
		errs = append(errs, n.payOwed(ctx, now))
	}
	errs = append(errs, n.payWide(now))
	return errors.Join(errs...)
}

// payOwed writes the owed elements of the hash maps.
func (n *NFTables) payOwed(ctx context.Context, now second) error {
	force := n.forced
	n.batch = n.batch[:0]
	for p, was := range n.owed {
		v := n.state.get(p)
		if v.until <= now {
			v = slot{}
		}
		n.batch = append(n.batch, op{p, kindOf(p), was, v})
	}
	stamps := n.adopted && !n.stampsLost
	if len(n.batch) > perTransaction && stamps {
		if err := n.dropStamps(); err != nil {
			return err
		}
		stamps = false
	}
	var errs []error
	done := 0
	for ops := range slices.Chunk(n.batch, perTransaction) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, n.write(ops, force, stamps)...)
		done += len(ops)
		if n.test.stall != nil {
			n.test.stall(done, len(n.batch))
		}
		if len(errs) > maxRefusals {
			break
		}
	}
	if len(n.owed) == 0 {
		n.forced = false
		if done > perTransaction {
			// What a big change needed is not kept.
			n.owed, n.batch = make(map[netip.Prefix]slot), nil
		}
	}
	return errors.Join(errs...)
}

// write writes some changes together, and where the kernel refuses them, in
// ever smaller parts until the one is found that it refuses. What was written
// is no longer owed.
func (n *NFTables) write(ops []op, force, stamps bool) []error {
	err := n.writeOnce(ops, force, stamps)
	if err == nil {
		if len(n.owed) > 0 {
			for _, o := range ops {
				delete(n.owed, o.prefix)
			}
		}
		return nil
	}
	if stamps {
		if err := n.dropStamps(); err != nil {
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

func (n *NFTables) writeOnce(ops []op, force, stamps bool) error {
	gone := func(o *op) bool { return o.old.class != 0 || force }
	came := func(o *op) bool { return o.new.class != 0 }
	if force && !n.can.destroy {
		// This kernel cannot delete what may not be there, so the deletions go
		// first and alone, one by one.
		for i := range ops {
			n.k.tx.begin()
			n.encodeKeys(unix.NFT_MSG_DELSETELEM, ops[i].kind, ops[i:i+1], gone)
			if err := n.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	var leave, come [kindWide]bool // which kinds have any
	for i := range ops {
		o := &ops[i]
		leave[o.kind] = leave[o.kind] || gone(o)
		come[o.kind] = come[o.kind] || came(o)
	}
	n.k.tx.begin()
	for k := range kindWide {
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
	if stamps {
		n.soilStamps(ops)
	}
	if slices.Contains(come[:], true) {
		return n.flushChange()
	}
	return n.flush()
}

// msgDestroySetElem is NFT_MSG_DESTROYSETELEM: delete, if it is there.
const msgDestroySetElem = 30

var mapNames = [...]string{kindHost4: mapHost4, kindHost6: mapHost6, kindNet6: mapNet6}

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
func (n *NFTables) encodeKeys(msg uint16, k kind, ops []op, pick func(*op) bool) {
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
func (n *NFTables) encodeElements(k kind, ops []op, pick func(*op) bool, asTheyWere bool) {
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
func (n *NFTables) encodeElement(key []byte, v slot) {
	n.k.tx.element(key, v.until != never, n.timeout(v.until), n.state.classes[v.class].id)
}

// timeout gives the milliseconds until a time, at least one.
func (n *NFTables) timeout(until second) uint64 {
	left := int64(until)*1000 - n.clock.at.UnixMilli()
	if n.clock.at.Nanosecond()%int(time.Millisecond) != 0 {
		left-- // of the present, too, the part of a millisecond counts
	}
	return uint64(max(left, 1))
}

// loadAll writes every ban, in a stream that needs no memory of its own. Into
// maps that may hold something it writes with force, so that nothing is open
// meanwhile; what is there beyond the wanted is found by the next Check.
func (n *NFTables) loadAll(ctx context.Context, now second) error {
	n.state.sweep(now, true)
	force := n.reload == reloadForced
	if err := n.dropStamps(); err != nil {
		return err
	}
	var errs []error
	written, bulk := 0, n.state.size()
	batch := make([]op, 0, min(perTransaction, bulk))
	send := func() bool {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			return false
		}
		failed := n.write(batch, force, false)
		if len(failed) > 0 {
			for _, o := range batch {
				n.owed[o.prefix] = o.old
			}
			n.forced = true
		}
		errs = append(errs, failed...)
		written += len(batch)
		batch = batch[:0]
		if n.test.stall != nil {
			n.test.stall(written, bulk)
		}
		return len(errs) <= maxRefusals
	}
	complete := true
	for k := kindHost4; k <= kindNet6 && complete; k++ {
		n.state.eachOf(k, func(p netip.Prefix, v slot) bool {
			batch = append(batch, op{prefix: p, kind: k, new: v})
			if len(batch) == perTransaction {
				complete = send()
			}
			return complete
		})
	}
	if complete && len(batch) > 0 {
		complete = send()
	}
	if complete {
		n.reload = reloadNone
	}
	return errors.Join(errs...)
}
