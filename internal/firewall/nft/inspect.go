package nft

import (
	"errors"
	"fmt"
	"strings"

	"banmesh/internal/firewall"
)

// Inspect gives a [Summary]. It changes nothing and needs no agent.
func Inspect(table string) (s firewall.Summary, err error) {
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
		for _, m := range []firewall.MapSummary{
			{Name: mapHost4, Holds: "IPv4 addresses", Bans: true},
			{Name: mapHost6, Holds: "IPv6 addresses", Bans: true},
			{Name: mapNet6, Holds: "IPv6 /64 networks", Bans: true},
			{Name: mapWide4, Holds: "other IPv4 prefixes", Bans: true},
			{Name: mapWide6, Holds: "other IPv6 prefixes", Bans: true},
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
		s.Counters = make(map[string]firewall.Counter, len(counters))
		for name, c := range counters {
			if topic, ok := strings.CutPrefix(name, counterHead); ok {
				s.Counters[topic] = c
			}
		}
		return nil
	})
	return s, err
}
