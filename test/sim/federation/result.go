package main

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// result holds the counts of a simulated scenario.
type result struct {
	scenario
	met, banned, watched int // visits of attackers, and how they were met
	suspected, trapped   int
	delays, known        []time.Duration // first ban anywhere to a ban at a host, to a ban or watch there
	attemptsSeen         int             // attempts of attackers that reached a service
	afterFirst           int             // of them, those after the first ban anywhere
	innocents            int             // innocent addresses that peers' claims banned somewhere
	typos                int             // innocent addresses that were banned for one wrong password
	stalled              int             // innocent addresses that were banned for a node's own stall
	refused              int             // visits of innocents that were refused
	innocentVisits       int
	critical             int // gateways and resolvers banned somewhere
	waiting              int // hostile claims that wait at the end, per host
	quarantined          int // hostile operators in quarantine at the end, per host
	edges, edgesLost     int // pairs of a host and an honest operator of its core; those that the measure suspended
	weak, strong         int // claims that honest operators shared
	caught               []int
	low                  int // low-rate addresses
}

func share(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }

// coverage is the share of attackers' visits that were met as banned or
// watched.
func (r result) coverage() float64 { return share(r.banned+r.watched, r.met) }

func (r result) summary() string {
	return fmt.Sprintf("%.1f %% met as banned or watched, %d innocents, %d critical", r.coverage(), r.innocents, r.critical)
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// caughtAt gives the try at which half of the low-rate addresses were caught,
// and the last one; 0 for one that never was.
func (r result) caughtAt() (half, last int) {
	if len(r.caught) == 0 {
		return 0, 0
	}
	slices.Sort(r.caught)
	if m := r.low / 2; m < len(r.caught) {
		half = r.caught[m]
	}
	if len(r.caught) == r.low {
		last = r.caught[len(r.caught)-1]
	}
	return half, last
}

// set counts distinct addresses.
type set map[ban.Target]bool
