package nft

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// reopen replaces a socket whose answers can no longer be trusted.
func (n *Firewall) reopen() error {
	k, err := openKernel(n.config.Table)
	if err != nil {
		return err
	}
	_ = n.k.close()
	n.k = k
	n.have, n.foreign, n.forced = nil, true, true
	return nil
}

// flushPending writes all that is pending. A write that fails stays pending.
func (n *Firewall) flushPending(ctx context.Context) error {
	n.clock.at = n.now()
	now := desired.SecondOf(n.clock.at)
	lapsed, err := n.state.Lapse(now)
	if err != nil {
		return err
	}
	for _, p := range lapsed {
		n.note(p, n.state.Get(p))
		n.forced = true
	}
	if err := n.planPrefixes(now); err != nil {
		return err
	}
	if _, err := n.structure(); err != nil {
		return err
	}
	var errs []error
	if n.reload != reloadNone {
		errs = append(errs, n.loadAll(ctx, now))
	} else if len(n.pending) > 0 {
		errs = append(errs, n.writePending(ctx, now))
	}
	errs = append(errs, n.flushPrefixes(now), n.refreshTraps())
	return errors.Join(errs...)
}

// writePending writes the pending elements of the hash maps.
func (n *Firewall) writePending(ctx context.Context, now desired.Second) error {
	force := n.forced
	n.batch = n.batch[:0]
	for p, was := range n.pending {
		v := n.state.Get(p)
		if v.Until <= now {
			v = desired.Slot{}
		}
		n.batch = append(n.batch, op{p, desired.KindOf(p), was, v})
	}
	sums := n.adopted && !n.checksumsLost
	if len(n.batch) > perTransaction && sums {
		if err := n.dropChecksums(); err != nil {
			return err
		}
		sums = false
	}
	var errs []error
	done := 0
	for ops := range slices.Chunk(n.batch, perTransaction) {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, n.write(ops, force, sums)...)
		done += len(ops)
		if n.test.stall != nil {
			n.test.stall(done, len(n.batch))
		}
		if len(errs) > firewall.MaxRefusals {
			break
		}
	}
	if len(n.pending) == 0 {
		n.forced = false
		if done > perTransaction {
			// The memory of a big change is not kept.
			n.pending, n.batch = make(map[netip.Prefix]desired.Slot), nil
		}
	}
	return errors.Join(errs...)
}

// loadAll writes every ban, in a stream that needs no memory of its own. Into
// maps that may hold something it writes with force, so that nothing is open
// meanwhile; elements beyond the wanted ones are found by the next Check.
func (n *Firewall) loadAll(ctx context.Context, now desired.Second) error {
	n.state.Sweep(now-countSlack, true)
	force := n.reload == reloadForced
	if err := n.dropChecksums(); err != nil {
		return err
	}
	var errs []error
	written, bulk := 0, n.state.Size()
	batch := make([]op, 0, min(perTransaction, bulk))
	send := func() bool {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			return false
		}
		failed := n.write(batch, force, false)
		if len(failed) > 0 {
			for _, o := range batch {
				n.pending[o.prefix] = o.old
			}
			n.forced = true
		}
		errs = append(errs, failed...)
		written += len(batch)
		batch = batch[:0]
		if n.test.stall != nil {
			n.test.stall(written, bulk)
		}
		return len(errs) <= firewall.MaxRefusals
	}
	complete := true
	for k := desired.KindHost4; k <= desired.KindNet6 && complete; k++ {
		n.state.EachOf(k, func(p netip.Prefix, v desired.Slot) bool {
			if v.Until <= now {
				return true // the kernel may count it still
			}
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
