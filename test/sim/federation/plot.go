package main

import (
	"fmt"
	"strings"
)

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
		banned, watched := share(r.banned, r.met)/100, share(r.watched, r.met)/100
		harm := share(r.innocents+r.typos, r.scenario.innocents) / 100
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+18, r.name)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="12" fill="#1f6f8b"/>`, left, y+2, banned*width)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="12" fill="#99c1cf"/>`, left+banned*width, y+2, watched*width)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="12" fill="#c0392b"/>`, left, y+16, min(1, harm)*width)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#555555">%.0f %% · %d innocents</text>`+"\n", left+width+8, y+18, r.coverage(), r.innocents+r.typos)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
