package main

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// scenario is a network, its rules and its enemies.
type scenario struct {
	name, about string
	seed        uint64 // of the week's draws
	operators   int
	attackers   int // each with a pool of addresses
	innocents   int // users' addresses
	// rules of every honest operator. `core` are coreSize operators that it
	// knows, of which coreHostile turn out to be hostile.
	ban, watch, suspect, require string
	coreSize, coreHostile        int
	ttl                          time.Duration        // how long a claim counts; 0: the defaults of the policy
	limits                       *policy.LimitsSource // nil: the defaults
	neverBan, probation          bool
	shared                       bool // nothing is shared at all if false
	signs                        signs
	conduct                      conduct
}

// signs are the kinds of evidence that a network uses beside the quorum.
type signs struct {
	strangers    int     // threshold of addresses that never authenticated here; 0: maxRetry for all
	guests       bool    // peers' claims and weak evidence never touch who authenticated here
	measure      bool    // peers that claim guests too often count for nothing
	watchedCount bool    // a ban of a watched address is a vote, though not the first
	lasting      bool    // authors stand by their claims after their own ban has ended
	weak         bool    // failures below the threshold are shared as weak evidence
	traps        float64 // share of the attackers' visits that touch a closed port first
	episodes     bool    // lines of one second from several sources are the node's own stall
}

// conduct is how the attackers and the hostile operators behave.
type conduct struct {
	silent   bool      // the hostile operators claim nothing
	quiet    int       // they echo every true ban and agree on so many lies; 0: they shout
	basis    ban.Basis // of their lies; weak: to poison the sums of weak evidence
	accounts float64   // share of the attackers' addresses with an account at a fifth of the hosts
	pace     time.Duration
	lowRate  int // addresses that try every host once, one try each pace
	stalls   int // times that a node stands still in the week
}

// The simulated week. Thresholds are those of the shipped sshd topic.
const (
	week      = 7 * 24 * time.Hour
	turnAt    = 4 * 24 * time.Hour // when the hostile begin, a day after probation
	maxRetry  = 5
	findTime  = 10 * time.Minute
	banTime   = 24 * time.Hour
	pool      = 6    // addresses of an attacker
	visits    = 0.7  // share of the hosts that an address comes to
	active    = 30   // hours in which it does
	attempts  = 8    // of a visit that nobody stops
	typo      = 0.05 // of an innocent's visits begin with a wrong password
	perPoison = 5000 // claims of one flooder
	firstSeed = 7
)

// network is the world of every row; each row changes a part of it.
func network(n int) scenario {
	return scenario{
		seed: firstSeed, operators: n, attackers: 120, innocents: 1500,
		coreSize: 10, coreHostile: 1,
		neverBan: true, probation: true, shared: true,
		conduct: conduct{basis: ban.BasisStrong},
	}
}

// fewHits is the evidence that rules that only count ask for a ban: with fewer
// hits it is worth watching and no vote at all. In today's language that is said
// of the connection, which such claims do not name in these rows.
const fewHits = "hits >= 3 and tcp"

// plainRows are rules that count operators and hits, and know no other sign:
// the rules that were recommended before guests and bases were known, and rules
// that people write.
func plainRows(n int) []scenario {
	base := network(n)
	base.ban, base.watch, base.require = "4 of core", "2 of core", fewHits
	with := func(name, about string, change func(*scenario)) scenario {
		s := base
		change(&s)
		s.name, s.about = name, about
		return s
	}
	anyone := func(s *scenario) { s.ban, s.watch, s.require = "any of everyone", "", "" }
	bare := func(s *scenario) { s.limits, s.probation = unlimited(), false }
	third := fmt.Sprintf("%d of everyone", n/3+1)
	return []scenario{
		with("plain", fmt.Sprintf("ten operators that one knows, one of whom is hostile: `ban = %q`, `watch = %q`, `require = %q`", base.ban, base.watch, base.require), func(*scenario) {}),
		with("plain, everybody named", "the same kind of rules for who knows nobody and names the whole network, the hostile third too: more than a third must agree", func(s *scenario) {
			s.ban, s.watch = third, "2 of everyone"
		}),
		with("alone", "nothing is shared", func(s *scenario) { s.shared = false }),
		with("anyone bans, no defence", "`ban = \"any of everyone\"` and nothing else: a shared secret, or a plain list", func(s *scenario) {
			anyone(s)
			bare(s)
			s.neverBan = false
		}),
		with("anyone bans, never-ban", "the same with the never-ban list", func(s *scenario) {
			anyone(s)
			bare(s)
		}),
		with("anyone bans, all defences", "the same with budgets, holds, strikes and probation too", anyone),
		with("2 of everyone", "a quorum of all, all defences: the hostile third agrees with itself", func(s *scenario) {
			anyone(s)
			s.ban = "2 of everyone"
		}),
		with("more than a third, no watch", "a quorum that is greater than the hostile third, and nothing else", func(s *scenario) {
			anyone(s)
			s.ban = third
		}),
		with("plain, no watch", "without the watch rule", func(s *scenario) { s.watch = "" }),
		with("plain, weak evidence", "without `require`", func(s *scenario) { s.require = "" }),
		with("plain, 2 traitors", "two of the ten are hostile", func(s *scenario) { s.coreHostile = 2 }),
		with("plain, 3 traitors", "three of the ten are hostile, as many as the rules bear", func(s *scenario) { s.coreHostile = 3 }),
		with("plain, 4 traitors", "four of the ten are hostile, as many as the ban rule needs", func(s *scenario) { s.coreHostile = 4 }),
		with("4 traitors, no budgets", "the same without budgets, holds, strikes and probation", func(s *scenario) {
			s.coreHostile = 4
			bare(s)
		}),
		with("plain, watch anyone of core", "`watch = \"any of core\"`: one hostile operator is enough to have innocents watched", func(s *scenario) { s.watch = "any of core" }),
		with("a small core", "five that one knows, one hostile: `ban = \"2 of core\"`, `watch = \"any of core\"`", func(s *scenario) {
			s.coreSize, s.ban, s.watch = 5, "2 of core", "any of core"
		}),
		with("a core of friends", "ten that one knows, none hostile: `ban = \"any of core\"`", func(s *scenario) {
			s.coreHostile, s.ban, s.watch = 0, "any of core", ""
		}),
	}
}

// unlimited takes all budgets, holds and strikes away.
func unlimited() *policy.LimitsSource {
	number := func(n int) *int { return &n }
	return &policy.LimitsSource{
		PerHour: number(1 << 24), Live: number(1 << 24), Addresses: number(1<<31 - 1), Decided: number(1 << 24), Strikes: number(1000),
	}
}
