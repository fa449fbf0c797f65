package firewall

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
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

// Resume ends what [Panic] began. A running agent puts its bans in force at its
// next Check.
func Resume(table string) error {
	return onTable(table, func(k *kernel) error { return k.deleteTable(table + offSuffix) })
}

// onTable does something to a table in the name of a person.
func onTable(table string, do func(k *kernel) error) error {
	if err := CheckTable(table); err != nil {
		return err
	}
	k, err := openKernel(table)
	if err != nil {
		return err
	}
	defer func() { _ = k.close() }()
	switch err := do(k); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("table %s: %w", table, ErrDenied)
	case err != nil:
		return fmt.Errorf("table %s: %w", table, err)
	}
	return nil
}

// deleteTable deletes a table that may not be there.
func (k *kernel) deleteTable(name string) error {
	k.tx.begin()
	k.tx.change(unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME, name)
	k.tx.end()
	if err := k.flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (k *kernel) exists(table string) (bool, error) {
	err := k.ask(unix.NFT_MSG_GETTABLE, 0, unix.NFPROTO_INET, func(w *writer) { w.text(unix.NFTA_TABLE_NAME, table) }, func(message) error { return nil })
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// obeySwitch looks for the switch and acts when it was thrown or taken away.
func (n *NFTables) obeySwitch(d *Drift) error {
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
func (n *NFTables) switchOff() error {
	n.have = nil
	return n.explain("switching off", n.k.deleteTable(n.config.Table))
}

// A Summary is what a table holds, read from the kernel without reading bans:
// quick at a million of them, when nft's own listing takes a minute.
type Summary struct {
	Table    string             `json:"table"`
	Present  bool               `json:"present"`
	Off      bool               `json:"off"`   // switched off by [Panic]
	Owned    bool               `json:"owned"` // by the agent that runs
	Maps     []MapSummary       `json:"maps,omitempty"`
	Counters map[string]Counter `json:"counters,omitempty"` // by topic
	// Operators has the counters of observed topics by operator.
	Operators map[ban.Topic]map[string]Counter `json:"operators,omitempty"`
}

// A MapSummary is how full a map is.
type MapSummary struct {
	Name     string `json:"name"`
	Holds    string `json:"holds"` // for people
	Elements uint32 `json:"elements"`
	Known    bool   `json:"known"` // whether this kernel says how many
}

// Inspect gives a [Summary]. It changes nothing and needs no agent.
func Inspect(table string) (s Summary, err error) {
	s.Table = table
	err = onTable(table, func(k *kernel) error {
		if s.Off, err = k.exists(table + offSuffix); err != nil {
			return err
		}
		flags, err := k.tableFlags()
		if errors.Is(err, errNoTable) {
			return nil
		}
		if err != nil {
			return err
		}
		s.Present, s.Owned = true, flags&tableOwner != 0
		for _, m := range []MapSummary{
			{Name: mapHost4, Holds: "IPv4 addresses"},
			{Name: mapHost6, Holds: "IPv6 addresses"},
			{Name: mapNet6, Holds: "IPv6 /64 networks"},
			{Name: mapWide4, Holds: "other IPv4 prefixes"},
			{Name: mapWide6, Holds: "other IPv6 prefixes"},
			{Name: setNever4, Holds: "IPv4 ranges never banned"},
			{Name: setNever6, Holds: "IPv6 ranges never banned"},
		} {
			m.Elements, m.Known, err = k.count(m.Name)
			if isGone(err) {
				continue // a table of our name that somebody else made
			}
			if err != nil {
				return fmt.Errorf("counting %s: %w", m.Name, err)
			}
			s.Maps = append(s.Maps, m)
		}
		counters, err := k.counters()
		if err != nil {
			return err
		}
		s.Operators = operatorsOf(counters)
		s.Counters = make(map[string]Counter, len(counters))
		for name, c := range counters {
			if topic, ok := strings.CutPrefix(name, counterHead); ok {
				s.Counters[topic] = c
			}
		}
		return nil
	})
	return s, err
}
