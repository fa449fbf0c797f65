package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (p *page) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What sharing bans is worth, and what it costs when a third is hostile

Written by `+"`make sim`"+`; do not edit. The policy and ledger code of the agent itself runs on a simulated week: %d operators, of which
a third is hostile; attackers with %d addresses each, every one of which comes to %.0f %% of the hosts within %d hours and tries %d
passwords at each; detection with maxretry %d, findtime %s, bantime %s; innocent users, who mistype once in %.0f visits. The
hostile claim everything as strongly as a claim can be made. Detection, logins, stalls and closed ports are a model around that code.

![coverage and harm](simulation.svg)

`, p.operators, pool, 100*visits, active, attempts, maxRetry, short(findTime), short(banTime), 1/typo)
	p.weeksTable(&b)
	p.signTables(&b)
	p.conductTable(&b)
	p.plainTable(&b)
	p.boundsTable(&b)
	b.WriteString("## Assumed rates\n\nA figure that hangs on a guess says so, and no aim is checked on it alone.\n\n| rate | value | source | what hangs on it |\n|---|---|---|---|\n")
	for _, r := range rates() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, r.value, r.source, r.hangs)
	}
	b.WriteString(`
## How to read it

A visit is one of an attacking address to a host, the very first one included, which nobody can know of. A *watched* address falls at
its first failure instead of its fifth, a *suspect* at its second; *known* is watched or banned. Medians are over pairs of an
address and a host, from the first ban anywhere to the moment at which that host bans it, by peers' claims or by its own
detection, or knows it. "After the first ban anywhere" are the attempts that somebody could have prevented: before it
nobody knew. "By peers" are innocent addresses that others' claims banned at any host, even one that they never visit; "typos" are innocents
banned at their own wrong password because somebody named them. As many liars as the ban rule's quorum ban whom they like if
they are quiet: that is a law of counting, and the rows of conduct show it.
`)
	return b.String()
}

const weekHead = "| rules | attempts that reached a service | after the first ban anywhere | banned / watched / suspect / own trap, % of visits | median to ban | median to known | innocents banned by peers | typos | one try a host: half, all caught by | honest trust lost |\n|---|---|---|---|---|---|---|---|---|---|\n"

func (p *page) weeksTable(b *strings.Builder) {
	fmt.Fprintf(b, "## The recommended rules\n\n%d weeks where two numbers stand, least and greatest; one week elsewhere.\n\n", len(seeds))
	b.WriteString(weekHead)
	for _, rows := range p.varied {
		weekRow(b, rows)
	}
	b.WriteByte('\n')
	for _, rows := range p.varied {
		if about := rows[0].about; about != "" {
			fmt.Fprintf(b, "- **%s**: %s\n", rows[0].name, about)
		}
	}
	b.WriteByte('\n')
}

func weekRow(b *strings.Builder, rows []result) {
	span := func(f func(result) float64) string {
		list := over(rows, f)
		low, high := fmt.Sprintf("%.0f", list[0]), fmt.Sprintf("%.0f", slices.Max(list))
		if low == high {
			return low
		}
		return low + " to " + high
	}
	r := rows[0]
	minutes := func(d func(result) []time.Duration) string {
		return span(func(r result) float64 { return median(d(r)).Minutes() }) + " min"
	}
	caught := "-"
	if r.low > 0 {
		half, last := 0, 0
		never := 0
		for _, r := range rows {
			h, l := r.caughtAt()
			half, last, never = max(half, h), max(last, l), max(never, r.low-len(r.caught))
		}
		caught = fmt.Sprintf("%d, %d", half, last)
		if never > 0 {
			caught = fmt.Sprintf("%.0f %% never", share(never, r.low))
		}
	}
	fmt.Fprintf(b, "| %s | %s | %s | %.0f / %.0f / %.0f / %.0f | %s | %s | %s | %s | %s | %d of %d |\n",
		r.name, span(func(r result) float64 { return float64(r.attemptsSeen) }), span(func(r result) float64 { return float64(r.afterFirst) }),
		share(r.banned, r.met), share(r.watched, r.met), share(r.suspected, r.met), share(r.trapped, r.met),
		minutes(func(r result) []time.Duration { return r.delays }), minutes(func(r result) []time.Duration { return r.known }),
		span(func(r result) float64 { return float64(r.innocents) }), span(func(r result) float64 { return float64(r.typos) }),
		caught, r.edgesLost, r.edges)
}

const signHead = "| | attempts | banned / watched / suspect / own trap % | median to ban | median to known | innocents banned by peers | typos | for an own stall | one try a host: half, all caught by |\n|---|---|---|---|---|---|---|---|---|\n"

func (p *page) signTables(b *strings.Builder) {
	b.WriteString("## One sign after the other\n\nEach row adds one sign to the row above it.\n\n" + signHead)
	for _, r := range p.ladder {
		signRow(b, r)
	}
	b.WriteString("\n## Without each of them\n\nThe recommended rules with one sign left out.\n\n" + signHead)
	for _, r := range p.ablation {
		signRow(b, r)
	}
	b.WriteByte('\n')
	for _, s := range allSigns() {
		fmt.Fprintf(b, "- **%s**: %s\n", s.name, s.about)
	}
	b.WriteByte('\n')
}

func signRow(b *strings.Builder, r result) {
	half, last := r.caughtAt()
	caught := fmt.Sprintf("%d, %d", half, last)
	if never := r.low - len(r.caught); never > 0 {
		caught = fmt.Sprintf("%.0f %% never", share(never, r.low))
	}
	fmt.Fprintf(b, "| %s | %d | %.0f / %.0f / %.0f / %.0f | %.0f min | %.0f min | %d | %d | %d | %s |\n", r.name, r.attemptsSeen,
		share(r.banned, r.met), share(r.watched, r.met), share(r.suspected, r.met), share(r.trapped, r.met),
		median(r.delays).Minutes(), median(r.known).Minutes(), r.innocents, r.typos, r.stalled, caught)
}

func (p *page) conductTable(b *strings.Builder) {
	b.WriteString("## Rules by hostile conduct\n\nInnocents banned by peers / for one typo / honest trust lost, of those that one knows. Loud: they claim all innocents, " +
		"at once, slowly or in a flood. Quiet: they echo every true ban, which keeps their record clean, and agree on some innocents over three days. " +
		"Poison: they give them as weak evidence. The aims are checked on the worst cell for one liar.\n\n| conduct |")
	for _, row := range p.policies {
		fmt.Fprintf(b, " %s |", row.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(p.policies)) + "\n")
	for _, c := range p.conducts {
		fmt.Fprintf(b, "| %s |", c.name)
		for _, row := range p.policies {
			if r, ok := p.cell(row, c); ok {
				fmt.Fprintf(b, " %d / %d / %d |", r.innocents, r.typos, r.edgesLost)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}

func (p *page) plainTable(b *strings.Builder) {
	b.WriteString("## Rules that only count\n\nWhat people write, and what was recommended before claims had a basis. The hostile behave until the fifth day; then they " +
		"claim, in agreement, all innocent users (at once, slowly, or in a flood) and the gateways and resolvers that nodes need.\n\n" +
		"| rules | attackers met as banned or watched | banned | watched | median to ban | median to known | attempts that reached a service | after the first ban anywhere | " +
		"innocent addresses banned by peers | innocents banned after one wrong password | innocents' visits refused | critical addresses banned |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range p.plain {
		fmt.Fprintf(b, "| %s | %.1f %% | %.1f %% | %.1f %% | %.0f min | %.0f min | %d | %d | %d of %d | %d | %.2f %% | %d |\n",
			r.name, r.coverage(), share(r.banned, r.met), share(r.watched, r.met), median(r.delays).Minutes(), median(r.known).Minutes(), r.attemptsSeen, r.afterFirst,
			r.innocents, r.scenario.innocents, r.typos, share(r.refused, r.innocentVisits), r.critical)
	}
	b.WriteByte('\n')
	for _, r := range p.plain {
		if r.about != "" {
			fmt.Fprintf(b, "- **%s**: %s\n", r.name, r.about)
		}
	}
	b.WriteByte('\n')
}

func (p *page) boundsTable(b *strings.Builder) {
	b.WriteString("## Bounds\n\nNo rule passes the first two; the others need every operator to be honest and known.\n\n| | attempts | median to ban |\n|---|---|---|\n")
	fmt.Fprintf(b, "| every host bans at the first offence anywhere | %d | 0 min |\n| every host bans at the first ban anywhere | %d | 0 min |\n", p.oracleFirst, p.oracleBan)
	for _, r := range p.bounds {
		fmt.Fprintf(b, "| %s | %d | %.0f min |\n", r.name, r.attemptsSeen, median(r.delays).Minutes())
	}
	b.WriteByte('\n')
}
