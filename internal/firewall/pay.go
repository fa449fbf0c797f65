package firewall

import (
	"context"
	"encoding/binary"
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
		n.batch = append(n.batch, op{p, was, v})
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
		errs = append(errs, n.write(ops, now, force, stamps)...)
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
			n.owed, n.batch, n.gone, n.came = make(map[netip.Prefix]slot), nil, nil, nil
		}
	}
	return errors.Join(errs...)
}

// write writes some changes together, and where the kernel refuses them, in
// ever smaller parts until the one is found that it refuses. What was written
// is no longer owed.
func (n *NFTables) write(ops []op, now second, force, stamps bool) []error {
	err := n.writeOnce(ops, now, force, stamps)
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
		return n.write(ops, now, true, false)
	case len(ops) == 1:
		return []error{fmt.Errorf("ban of %s: %w", ops[0].prefix, n.explain("writing", err))}
	}
	half := len(ops) / 2
	return append(n.write(ops[:half], now, force, false), n.write(ops[half:], now, force, false)...)
}

// refusable says whether an error can be about single elements.
func refusable(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.EBUSY)
}

func (n *NFTables) writeOnce(ops []op, now second, force, stamps bool) error {
	if force && !n.can.destroy {
		// This kernel cannot delete what may not be there, so the deletions go
		// first and alone, one by one.
		for _, o := range ops {
			n.k.tx.begin()
			n.encodeKeys(unix.NFT_MSG_DELSETELEM, kindOf(o.prefix), []op{o})
			if err := n.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
	}
	n.k.tx.begin()
	changes := false
	for k := kindHost4; k <= kindNet6; k++ {
		gone, came := n.gone[:0], n.came[:0]
		for _, o := range ops {
			if kindOf(o.prefix) != k {
				continue
			}
			if (o.old.class != 0 || force) && (n.can.destroy || !force) {
				gone = append(gone, o)
			}
			if o.new.class != 0 {
				came = append(came, o)
			}
		}
		if n.can.destroy {
			n.encodeKeys(msgDestroySetElem, k, gone)
		} else {
			n.encodeElements(k, gone, now, true)
			n.encodeKeys(unix.NFT_MSG_DELSETELEM, k, gone)
		}
		n.encodeElements(k, came, now, false)
		changes = changes || len(came) > 0
		n.gone, n.came = gone, came
	}
	if stamps {
		n.soilStamps(ops)
	}
	if changes {
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

// encodeKeys writes a deletion of some elements.
func (n *NFTables) encodeKeys(msg uint16, k kind, ops []op) {
	t := &n.k.tx
	var key [16]byte
	for chunk := range slices.Chunk(ops, perMessage) {
		list := t.elements(msg, 0, n.config.Table, mapNames[k])
		for i := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			t.value(unix.NFTA_SET_ELEM_KEY, appendKey(key[:0], chunk[i].prefix))
			t.unnest(one)
		}
		t.unnest(list)
		t.end()
	}
}

// encodeElements writes an addition of some elements: as they are to be, or,
// for the sake of deleting them where they may have ended, as they were.
func (n *NFTables) encodeElements(k kind, ops []op, now second, asTheyWere bool) {
	t := &n.k.tx
	var key [16]byte
	for chunk := range slices.Chunk(ops, perMessage) {
		list := t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapNames[k])
		for i := range chunk {
			v := chunk[i].new
			if asTheyWere {
				v = chunk[i].old
			}
			n.encodeElement(appendKey(key[:0], chunk[i].prefix), v, now)
		}
		t.unnest(list)
		t.end()
	}
}

func (n *NFTables) encodeElement(key []byte, v slot, now second) {
	t := &n.k.tx
	var data [4]byte
	binary.NativeEndian.PutUint32(data[:], n.state.classes[v.class].id)
	one := t.nest(unix.NFTA_LIST_ELEM)
	t.value(unix.NFTA_SET_ELEM_KEY, key)
	if v.until != never {
		t.u64(unix.NFTA_SET_ELEM_TIMEOUT, n.timeout(v.until))
	}
	t.value(unix.NFTA_SET_ELEM_DATA, data[:])
	t.unnest(one)
}

// timeout gives the milliseconds until a time, at least one.
func (n *NFTables) timeout(until second) uint64 {
	return uint64(max(until.time().Sub(n.clock.at)/time.Millisecond, 1))
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
		failed := n.write(batch, now, force, false)
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
	n.state.each(func(p netip.Prefix, v slot) bool {
		if kindOf(p) == kindWide {
			return true
		}
		batch = append(batch, op{prefix: p, new: v})
		if len(batch) == perTransaction {
			complete = send()
		}
		return complete
	})
	if complete && len(batch) > 0 {
		complete = send()
	}
	if complete {
		n.reload = reloadNone
	}
	return errors.Join(errs...)
}
