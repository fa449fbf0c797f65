package main

import (
	"fmt"
	"strings"
)

func markdown(results []result) string {
	var b strings.Builder
	b.WriteString("| rules | attackers met as banned or watched | banned | watched | median time to protection | attempts that reached a service | innocent addresses banned by peers | innocents banned after one wrong password | innocents' visits refused | critical addresses banned |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		share := func(n int) float64 { return 100 * float64(n) / float64(max(1, r.met)) }
		fmt.Fprintf(&b, "| %s | %.1f %% | %.1f %% | %.1f %% | %.0f min | %d | %d of %d | %d | %.2f %% | %d |\n",
			r.name, r.coverage(), share(r.banned), share(r.watched), r.median().Minutes(), r.attemptsSeen, r.innocents, r.scenario.innocents, r.typos,
			100*float64(r.refused)/float64(max(1, r.innocentVisits)), r.critical)
	}
	return b.String()
}

func page(operators int, table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What sharing bans is worth, and what it costs when a third is hostile

Written by `+"`make sim`"+`; do not edit. The policy and ledger code of the agent itself runs on a simulated week with a
fixed seed: %d operators, of which a third is hostile; attackers with %d addresses each, every one of which comes to
%.0f %% of the hosts within %d hours and tries %d passwords at each; detection with maxretry %d, findtime %s, bantime %s;
innocent users, who mistype once in %.0f visits. The hostile behave until the fifth day; then they claim, in agreement, all innocent
users (at once, slowly, or in a flood) and the gateways and resolvers that nodes need.

![coverage and harm](simulation.svg)

%s
`, operators, pool, 100*visits, active, attempts, maxRetry, findTime, banTime, 1/typo, table)
	b.WriteString("What the rows are:\n\n")
	for _, s := range scenarios(operators) {
		fmt.Fprintf(&b, "- **%s**: %s\n", s.name, s.what)
	}
	b.WriteString(`
How to read it: "met as banned or watched" counts each visit of an attacking address to a host, the very first one included, which
nobody can know of. A watched address falls at its first attempt instead of its fifth. Time to protection is from the first ban
anywhere to the ban at the host, whether by peers' claims or by its own detection. "Banned after one wrong password" is the
price of watching whom a hostile operator names: it is the reason why the watch rule should name operators that one knows.
`)
	return b.String()
}

// plot draws two bars a scenario: coverage, and innocents banned.
func plot(results []result) string {
	const (
		left, width, row, top = 250, 420, 34, 60
	)
	height := top + row*len(results) + 40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", left+width+150, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n")
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="15">Attackers met as banned or watched, and innocents banned (%% of each)</text>`+"\n", 12)
	fmt.Fprintf(&b, `<rect x="%d" y="34" width="12" height="12" fill="#1f6f8b"/><text x="%d" y="45">attackers: banned</text>`+"\n", left, left+18)
	fmt.Fprintf(&b, `<rect x="%d" y="34" width="12" height="12" fill="#99c1cf"/><text x="%d" y="45">watched</text>`+"\n", left+150, left+168)
	fmt.Fprintf(&b, `<rect x="%d" y="34" width="12" height="12" fill="#c0392b"/><text x="%d" y="45">innocents: banned</text>`+"\n", left+250, left+268)
	for tick := 0; tick <= 100; tick += 20 {
		x := left + width*tick/100
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#dddddd"/><text x="%d" y="%d" text-anchor="middle" fill="#555555">%d</text>`+"\n", x, top-6, x, height-28, x, height-12, tick)
	}
	for i, r := range results {
		y := top + row*i
		share := func(n, of int) float64 { return float64(n) / float64(max(1, of)) }
		banned, watched := share(r.banned, r.met), share(r.watched, r.met)
		harm := share(r.innocents+r.typos, r.scenario.innocents)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+18, r.name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="12" fill="#1f6f8b"/>`, left, y+2, banned*width)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="12" fill="#99c1cf"/>`, left+banned*width, y+2, watched*width)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="12" fill="#c0392b"/>`, left, y+16, min(1, harm)*width)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555555">%.0f %% · %d innocents</text>`+"\n", left+width+8, y+18, r.coverage(), r.innocents+r.typos)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
