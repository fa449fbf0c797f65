package main

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// eventKind says who does something.
type eventKind uint8

const (
	attempt  eventKind = iota // of an attacker, at a host
	visit                     // of an innocent, at a host
	hostile                   // a claim of a hostile operator
	lowTry                    // of a low-rate attacker, at a host
	standing                  // a node stands still
)

// event is something that happens at a host, or a claim of the hostile.
type event struct {
	at     time.Time
	kind   eventKind
	host   int // index of the honest operator; of the hostile one for a claim
	target ban.Target
	first  bool      // the first attempt of a visit
	wrong  bool      // the visit begins with a wrong password
	lost   bool      // and no right one follows
	trap   bool      // the visit touches a closed port first
	login  bool      // the visit begins with an account of the attacker's
	basis  ban.Basis // of a claim
	busy   []ban.Target
}

// Kinds of addresses.
const (
	attackerKind = iota
	innocentKind
	criticalKind // gateways, resolvers
	randomKind   // that nobody has, to fill feeds
	lowKind      // of attackers that try every host once
)

func address(kind, n int) ban.Target {
	t, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{byte(20 + kind), byte(n >> 16), byte(n >> 8), byte(n)}))
	if err != nil {
		panic(err)
	}
	return t
}

func kindOf(t ban.Target) int {
	p, _ := t.Prefix()
	return int(p.Addr().As4()[0]) - 20
}

// draws gives a generator of its own for everything that a row may add to the
// week, so that no addition moves earlier draws.
func (s scenario) draws(what string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(what))
	return rand.New(rand.NewPCG(s.seed, uint64(s.operators)^h.Sum64()))
}

// schedule makes the week's events in order.
func schedule(s scenario, honest int, start time.Time, rng *rand.Rand) []event {
	events := attackersOf(s, honest, start, rng)
	events = append(events, innocentsOf(s, honest, start, rng)...)
	events = append(events, shouts(s, honest, start, rng)...)
	s.addTraps(events)
	s.addAccounts(events)
	s.addLost(events)
	events = append(events, s.lies(honest, start)...)
	events = append(events, s.lowRates(honest, start)...)
	events = append(events, s.stalls(honest, start)...)
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return events
}

func attackersOf(s scenario, honest int, start time.Time, rng *rand.Rand) (events []event) {
	for a := range s.attackers {
		for p := range pool {
			target := address(attackerKind, a*pool+p)
			from := time.Duration(rng.Int64N(int64(week - active*time.Hour)))
			for h := range honest {
				if rng.Float64() > visits {
					continue
				}
				at := start.Add(from + time.Duration(rng.Int64N(int64(active*time.Hour))))
				for n := range attempts {
					events = append(events, event{at: at, kind: attempt, host: h, target: target, first: n == 0})
					at = at.Add(time.Duration(5+rng.IntN(40)) * time.Second)
				}
			}
		}
	}
	return events
}

func innocentsOf(s scenario, honest int, start time.Time, rng *rand.Rand) (events []event) {
	for i := range s.innocents {
		target := address(innocentKind, i)
		for range 7 * (1 + rng.IntN(2)) {
			at, host := start.Add(time.Duration(rng.Int64N(int64(week)))), rng.IntN(honest)
			events = append(events, event{at: at, kind: visit, host: host, target: target, first: true, wrong: rng.Float64() < typo})
		}
	}
	return events
}

// addTraps lets a part of the attackers' visits touch a closed port first: half
// of the visits of some addresses, so that the share is s.signs.traps.
func (s scenario) addTraps(events []event) {
	if s.signs.traps == 0 {
		return
	}
	rng := s.draws("traps")
	scans := map[ban.Target]bool{}
	for i := range events {
		e := &events[i]
		if e.kind != attempt || !e.first {
			continue
		}
		if _, known := scans[e.target]; !known {
			scans[e.target] = rng.Float64() < 2*s.signs.traps
		}
		e.trap = rng.Float64() < 0.5 && scans[e.target]
	}
}

// addAccounts gives a part of the attackers' addresses an account at a fifth of
// the hosts.
func (s scenario) addAccounts(events []event) {
	if s.conduct.accounts == 0 {
		return
	}
	rng := s.draws("accounts")
	has := map[ban.Target]bool{}
	for i := range events {
		e := &events[i]
		if e.kind != attempt || !e.first {
			continue
		}
		if _, known := has[e.target]; !known {
			has[e.target] = rng.Float64() < s.conduct.accounts
		}
		e.login = rng.Float64() < accountHosts && has[e.target]
	}
}

// addLost marks the wrong passwords that no right one follows.
func (s scenario) addLost(events []event) {
	rng := s.draws("lost")
	for i := range events {
		if events[i].kind == visit {
			events[i].lost = rng.Float64() < unredeemed
		}
	}
}

// lowRates are attackers that nobody's own threshold finds: every host once, in
// an order of their own, one try each pace.
func (s scenario) lowRates(honest int, start time.Time) (events []event) {
	rng := s.draws("low rate")
	for i := range s.conduct.lowRate {
		span := time.Duration(min(honest, lowTries)) * s.conduct.pace
		at := start.Add(time.Duration(rng.Int64N(int64(max(time.Hour, week-span)))))
		for n, h := range rng.Perm(honest) {
			if n == lowTries {
				break
			}
			events = append(events, event{at: at, kind: lowTry, host: h, target: address(lowKind, i)})
			at = at.Add(s.conduct.pace)
		}
	}
	return events
}

// stalls are the moments at which a node stands still while honest clients are
// busy with it: each leaves as many lines as a threshold, all of one second.
func (s scenario) stalls(honest int, start time.Time) (events []event) {
	rng := s.draws("stalls")
	for h := range honest {
		for range s.conduct.stalls {
			e := event{at: start.Add(time.Duration(rng.Int64N(int64(week)))), kind: standing, host: h}
			for range stalledClients {
				e.busy = append(e.busy, address(innocentKind, rng.IntN(s.innocents)))
			}
			events = append(events, e)
		}
	}
	return events
}
