package main

import (
	"math/rand/v2"
	"time"

	"banmesh/internal/ban"
)

// shouts are the claims of hostile operators that do not care to be caught:
// all of them claim the same innocents and the hosts that nodes need, some slowly, some
// at once, and some flood. The draws are made for those that keep quiet too.
func shouts(s scenario, honest int, start time.Time, rng *rand.Rand) (events []event) {
	for h := range s.operators - honest {
		who := honest + h
		at := start.Add(turnAt)
		claim := func(t ban.Target, pause time.Duration) {
			at = at.Add(pause)
			if at.Before(start.Add(week)) && !s.conduct.silent && s.conduct.quiet == 0 {
				events = append(events, event{at: at, kind: hostile, target: t, host: who, basis: s.conduct.basis})
			}
		}
		order := rng.Perm(s.innocents)
		switch h % 4 {
		case 0: // at once
			for _, i := range order {
				claim(address(innocentKind, i), 0)
			}
		case 1: // slowly enough for every budget
			for _, i := range order {
				claim(address(innocentKind, i), 2*time.Minute)
			}
		case 2: // gateways and resolvers, then the innocents
			for n := range 20 {
				claim(address(criticalKind, n), time.Minute)
			}
			for _, i := range order {
				claim(address(innocentKind, i), 30*time.Second)
			}
		case 3: // a flood
			for n := range perPoison {
				claim(address(randomKind, h*perPoison+n), 0)
				if n < len(order) {
					claim(address(innocentKind, order[n]), 0)
				}
			}
		}
	}
	return events
}

// lies are the claims of hostile operators that keep a clean record: a few
// innocents on whom they agree, over three days. What they echo meanwhile is
// said where a true ban is shared.
func (s scenario) lies(honest int, start time.Time) (events []event) {
	if s.conduct.silent || s.conduct.quiet == 0 {
		return nil
	}
	rng := s.draws("lies")
	victims := rng.Perm(s.innocents)[:min(s.conduct.quiet, s.innocents)]
	for n, i := range victims {
		at := start.Add(turnAt + time.Duration(n)*(week-turnAt)/time.Duration(len(victims)))
		for h := honest; h < s.operators; h++ {
			events = append(events, event{at: at, kind: hostile, target: address(innocentKind, i), host: h, basis: s.conduct.basis})
			at = at.Add(time.Second)
		}
	}
	return events
}
