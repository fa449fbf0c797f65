package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"banmesh/internal/ban"
)

// figure is a measured number and its aim.
type figure struct {
	name  string
	value float64
	unit  string
	aim   float64
	kind  aimKind
}

type aimKind uint8

const (
	none aimKind = iota
	most
	least
	wished // at most, and not part of the check
)

func (f figure) String() string {
	aim := "-"
	if f.kind != none {
		aim = strconv.FormatFloat(f.aim, 'f', -1, 64)
	}
	return fmt.Sprintf("figure sim_%s %s %s aim %s", f.name, strconv.FormatFloat(math.Round(100*f.value)/100, 'f', -1, 64), f.unit, aim)
}

func (f figure) missed() bool {
	return f.kind == most && f.value > f.aim || f.kind == least && f.value < f.aim
}

// over picks one number of every week.
func over(rows []result, f func(result) float64) []float64 {
	var list []float64
	for _, r := range rows {
		list = append(list, f(r))
	}
	slices.Sort(list)
	return list
}

// figures are the numbers that have aims: of rates of attack the median of the
// weeks, of harm the worst.
func (p *page) figures() []figure {
	middle := func(rows []result, f func(result) float64) float64 { l := over(rows, f); return l[len(l)/2] }
	worst := func(rows []result, f func(result) float64) float64 { return slices.Max(over(rows, f)) }
	tried := func(r result) float64 { return float64(r.attemptsSeen) }
	banned := func(r result) float64 { return median(r.delays).Minutes() }
	harmed := func(r result) float64 { return float64(r.innocents) }
	typos := func(r result) float64 { return float64(r.typos) }
	usual, many, accounts, slow := p.week(recommended), p.week(manyKnown), p.week(withAccounts), p.week(slowly)
	list := []figure{
		{"attempts", middle(usual, tried), "attempts", 8000, most},
		{"attempts_with_honeyports_guess", middle(p.week(withTraps), tried), "attempts", 7000, most},
		{"attempts_19_known", middle(many, tried), "attempts", 5000, most},
		{"attempts_alone", tried(p.named("alone")), "attempts", 0, none},
		{"attempts_oracle_at_the_first_ban", float64(p.oracleBan), "attempts", 0, none},
		{"known_median", middle(usual, func(r result) float64 { return median(r.known).Minutes() }), "min", 10, most},
		{"banned_median", middle(usual, banned), "min", 540, most},
		{"banned_median_19_known", middle(many, banned), "min", 260, most},
		{"visits_met_banned", middle(usual, func(r result) float64 { return share(r.banned, r.met) }), "%", 40, least},
		{"visits_met_known", middle(usual, result.coverage), "%", 80, least},
		{"innocents_banned_by_peers", worst(usual, harmed), "addresses", 0, most},
		{"innocents_banned_for_one_typo", worst(usual, typos), "addresses", 0, most},
		{"critical_banned", worst(usual, func(r result) float64 { return float64(r.critical) }), "addresses", 0, most},
		{"attempts_attackers_with_accounts_guess", middle(accounts, tried), "attempts", 8500, most},
		{"honest_trust_lost_attackers_with_accounts_guess", middle(accounts, func(r result) float64 { return share(r.edgesLost, r.edges) }), "%", 5, most},
	}
	for name, rows := range map[string][]result{"": usual, "_every_8_h": slow} {
		list = append(list,
			figure{"one_try_a_host_all_caught_by" + name, worst(rows, lastCaught), "th_try", 12, most},
			figure{"one_try_a_host_half_caught_by" + name, worst(rows, func(r result) float64 { half, _ := r.caughtAt(); return float64(cmp.Or(half, lowTries+1)) }), "th_try", 6, most})
	}
	slices.SortStableFunc(list[len(list)-4:], func(a, b figure) int { return cmp.Compare(a.name, b.name) })
	return append(list, p.worstCells()...)
}

// lastCaught is beyond every try where one address was never caught.
func lastCaught(r result) float64 {
	_, last := r.caughtAt()
	return float64(cmp.Or(last, lowTries+1))
}

// worstCells are the aims under hostile conduct: for one liar the worst of all
// conducts, for more of the loud ones.
func (p *page) worstCells() []figure {
	peers, loudTypos, quietTypos, loud, machines := 0, 0, 0, 0, 0
	for _, c := range p.conducts {
		r, ok := p.cell(p.policies[0], c)
		shouts := c.conduct.quiet == 0 && c.conduct.basis != ban.BasisWeak && c.conduct.accounts == 0
		switch {
		case !ok:
		case c.liars == 1:
			peers = max(peers, r.innocents)
			if shouts {
				loudTypos = max(loudTypos, r.typos)
			} else {
				quietTypos = max(quietTypos, r.typos)
			}
		case shouts && c.conduct.basis == ban.BasisStrong:
			// As many as the quorum are believed until they are measured, a minute.
			machines = max(machines, r.innocents)
		case shouts:
			loud = max(loud, r.innocents)
			loudTypos = max(loudTypos, r.typos)
		}
	}
	return []figure{
		{"one_liar_worst_conduct_innocents_banned_by_peers", float64(peers), "addresses", 0, most},
		{"two_to_four_loud_innocents_banned_by_peers", float64(loud), "addresses", 0, most},
		{"three_loud_as_machines_innocents_banned_by_peers", float64(machines), "addresses", 0, wished},
		{"loud_innocents_banned_for_one_typo", float64(loudTypos), "addresses", 0, most},
		{"one_quiet_liar_innocents_banned_for_one_typo", float64(quietTypos), "addresses", 5, most},
	}
}

// named gives a row of the first table.
func (p *page) named(name string) result {
	for _, r := range p.plain {
		if r.name == name {
			return r
		}
	}
	panic("no such row: " + name)
}
