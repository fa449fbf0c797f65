package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

// offSuffix names the switch: an empty table beside ours, which an operator
// sees in `nft list tables`, which any agent that runs or starts obeys, and
// which is gone after a reboot.
const offSuffix = "-off"

// Panic ends all enforcement with a table at once and for good: every ban is
// out of the kernel when it returns, or, where the running agent owns the
// table, at that agent's next [Firewall.Check]. Nothing is enforced until
// [Resume], whatever the agent learns meanwhile.
func Panic(table string) error {
	return onTable(table, func(k *kernel) error {
		k.tx.begin()
		k.tx.change(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFTA_TABLE_NAME, table+offSuffix)
		k.tx.u32(unix.NFTA_TABLE_FLAGS, 0)
		k.tx.end()
		if err := k.flush(); err != nil {
			return err
		}
		err := k.deleteTable(table)
		if flags, there := k.tableFlags(); errors.Is(err, unix.EPERM) && there == nil && flags&tableOwner != 0 {
			// Its owner will.
			return nil
		}
		return err
	})
}

// Resume undoes [Panic]. A running agent puts its bans in force at its
// next Check.
func Resume(table string) error {
	return onTable(table, func(k *kernel) error { return k.deleteTable(table + offSuffix) })
}

// obeySwitch looks for the switch and acts when it was thrown or taken away.
func (n *Firewall) obeySwitch(d *firewall.Drift) error {
	off, err := n.k.exists(n.config.Table + offSuffix)
	if err != nil {
		return n.explain("looking for the switch", err)
	}
	switch {
	case off && !n.off:
		n.log.Warn("enforcement was switched off by hand; `agent firewall resume` switches it on")
		d.Changed, d.What = true, append(d.What, "enforcement was switched off by hand")
		n.off = true
		return n.switchOff()
	case off:
		return n.switchOff()
	case n.off:
		n.log.Warn("enforcement was switched on again by hand")
		n.off, n.have = false, nil
		// Whatever the kernel has now is compared from the ground up.
		if n.adopted {
			n.reload = reloadForced
			for i := range n.wide {
				n.wide[i].dirty, n.wide[i].unknown = true, true
			}
		}
	}
	return nil
}

// switchOff takes our table away.
func (n *Firewall) switchOff() error {
	n.have = nil
	return n.explain("switching off", n.k.deleteTable(n.config.Table))
}

// Remove deletes the table and every ban in it. It refuses while an agent
// enforces with it.
func Remove(table string) error {
	if err := firewall.CheckTable(table); err != nil {
		return err
	}
	lock, err := firewall.TakeLock(table)
	if err != nil {
		return err
	}
	defer firewall.Unlock(lock)
	k, err := openKernel(table)
	if err != nil {
		return err
	}
	defer func() { _ = k.close() }()
	k.tx.begin()
	k.tx.change(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, table)
	k.tx.end()
	switch err := k.flush(); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("removing table %s: %w", table, firewall.ErrDenied)
	case err != nil:
		return fmt.Errorf("removing table %s: %w", table, err)
	}
	return nil
}
