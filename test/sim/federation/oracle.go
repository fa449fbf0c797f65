package main

import (
	"math/rand/v2"
	"time"
)

// oracle is a network in which all hosts know at once, and nobody lies: the
// bounds that no rule can pass. It counts the attempts that reach a service if
// every host bans an address for good after so many of its attempts at one
// host, whichever.
func oracle(s scenario, after int) (attemptsSeen int) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(s.operators)))
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	honest := s.operators - s.operators/3
	for i := range honest { // the draws of the cores come first
		drawCore(s, i, rng)
	}
	at := map[pair]int{}
	banned, away := set{}, map[pair]bool{}
	for _, e := range schedule(s, honest, start, rng) {
		if e.kind != attempt {
			continue
		}
		key := pair{e.host, e.target}
		if e.first {
			away[key] = banned[e.target]
		}
		if banned[e.target] || away[key] {
			continue
		}
		attemptsSeen++
		if at[key]++; at[key] >= after {
			banned[e.target] = true
		}
	}
	return attemptsSeen
}
