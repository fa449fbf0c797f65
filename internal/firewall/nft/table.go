package nft

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// shape is all that the table's form depends on, so that one more ban need not
// build it to find that it stayed the same.
type shape struct {
	configured   int // how often
	classes      int
	wide4, wide6 bool
}

// structure makes the table as the configuration and the classes want it, and
// names the differences. It reads the kernel when it does not know.
func (n *Firewall) structure() (what []string, err error) {
	now := shape{n.configured, len(n.state.Classes), n.wide[0].live, n.wide[1].live}
	if n.have != nil && n.shape == now {
		return nil, nil
	}
	want := build(n.config, n.state.Classes[1:], n.wide[0].live, n.wide[1].live, n.can, n.owned)
	fresh := ""
	if n.have == nil {
		if fresh, err = n.readTable(want); err != nil {
			return nil, err
		}
	}
	rebuild := false
	if fresh != "" {
		what = []string{fresh}
	} else {
		// A table built before is known to differ where classes were added, so
		// only one read from the kernel tells of drift.
		what, rebuild = n.have.changes(want)
		if len(what) == 0 {
			n.shape = now
			return nil, nil
		}
	}
	n.k.tx.begin()
	have := n.have
	if fresh != "" || rebuild {
		if fresh != wasGone {
			n.k.tx.change(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, n.config.Table)
			n.k.tx.end()
		}
		have = nil
	}
	if err := want.encode(&n.k.tx, n.config.Table, have); err != nil {
		return what, err
	}
	if err := n.flush(); err != nil {
		n.have = nil
		return what, n.explain("writing the table", err)
	}
	n.have, n.shape = want, now
	if fresh != "" || rebuild {
		// The maps are empty now.
		n.wide[0].held, n.wide[1].held = nil, nil
		n.wide[0].dirty, n.wide[1].dirty = true, true
		n.reload = reloadEmpty
		clear(n.pending)
		n.checksumsLost = true
		n.trapsDue = time.Time{}
		if _, n.handle, err = n.k.tableState(); err != nil {
			return what, n.explain("reading the table", err)
		}
	}
	return what, nil
}

// Reasons why the table is made anew.
const (
	wasGone    = "the table was gone"
	wasDormant = "the table was dormant"
)

// readTable makes have the table as the kernel has it. fresh says why there is
// none that could be changed.
func (n *Firewall) readTable(want *ruleset) (fresh string, err error) {
	isFixed := func(name string) bool { s, ok := want.set(name); return ok && s.fixed }
	have, err := n.k.read(isFixed)
	switch {
	case errors.Is(err, errNoTable):
		return wasGone, nil
	case errors.Is(err, errDormant):
		return wasDormant, nil
	case err != nil:
		return "", n.explain("reading the table", err)
	}
	if n.handle != 0 && have.handle != n.handle {
		n.replaced = true
		n.contentsUnknown()
	}
	n.handle = have.handle
	if have.owned != n.owned && n.owned {
		// An orphan of an earlier process is taken over by naming it again.
		n.k.tx.begin()
		n.k.tx.change(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFTA_TABLE_NAME, n.config.Table)
		n.k.tx.u32(unix.NFTA_TABLE_FLAGS, tableOwner|tablePersist)
		n.k.tx.end()
		if err := n.flush(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return "", n.explain("taking over the table", err)
		}
	}
	n.have = have
	return "", nil
}

// contentsUnknown makes every ban pending, and looks for strangers afterwards.
func (n *Firewall) contentsUnknown() {
	n.reload, n.suspectAt, n.checksumsLost = reloadForced, n.clock.at, true
	for i := range n.wide {
		n.wide[i].dirty, n.wide[i].unknown = true, true
	}
}

// flush commits and keeps account of the generation, so that the next Check
// sees whether anybody else wrote. A transaction that changes nothing leaves
// the generation alone, so the kernel is asked.
func (n *Firewall) flush() error {
	err := n.commit()
	if err != nil || n.k.tx.empty() {
		return err
	}
	gen, err := n.k.generation()
	if err != nil {
		return err
	}
	n.foreign = n.foreign || gen-n.gen > 1
	n.gen = gen
	return nil
}

// flushChange is flush for a transaction that is known to change something.
// Not asking saves a fifth of the cost of one more ban.
func (n *Firewall) flushChange() error {
	err := n.commit()
	if err == nil {
		n.gen++
	}
	return err
}

func (n *Firewall) commit() error {
	if n.k.tx.empty() {
		return nil
	}
	if n.test.commit != nil {
		if err := n.test.commit(n.k.tx.b); err != nil {
			return err
		}
	}
	err := n.k.flush()
	if errors.Is(err, errLost) || errors.Is(err, unix.ENOBUFS) {
		return errors.Join(err, n.reopen())
	}
	return err
}
