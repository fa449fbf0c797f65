package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
)

// scenario is a network, its rules and its enemies.
type scenario struct {
	name, what string
	operators  int
	attackers  int // each with a pool of addresses
	innocents  int // users' addresses
	// rules of every honest operator. `core` are coreSize operators that it
	// knows, of which coreHostile turn out to be hostile.
	ban, watch, require   string
	coreSize, coreHostile int
	limits                *policy.LimitsSource // nil: the defaults
	neverBan, probation   bool
	shared                bool // nothing is shared at all if false
	quiet                 bool // no hostile operators act
}

func scenarios(n int) []scenario {
	base := scenario{
		operators: n, attackers: 120, innocents: 1500,
		coreSize: 10, coreHostile: 1,
		neverBan: true, probation: true, shared: true,
	}
	base.ban, base.watch, base.require = policy.Recommended("core", base.coreSize)
	unlimited := &policy.LimitsSource{
		PerHour: number(1 << 20), Burst: number(1 << 24), Live: number(1 << 24), Addresses: number(1 << 31),
		HoldChange: number(0), HoldRate: number(0), Strikes: number(1000),
	}
	with := func(name, what string, change func(*scenario)) scenario {
		s := base
		change(&s)
		s.name, s.what = name, what
		return s
	}
	anyone := func(s *scenario) { s.ban, s.watch, s.require = "any of everyone", "", "" }
	bare := func(s *scenario) { s.limits, s.probation = unlimited, false }
	return []scenario{
		with(recommended, fmt.Sprintf("what applies where no rule is written, with ten operators that one knows, one of whom is hostile: `ban = %q`, `watch = %q`, `require = %q`", base.ban, base.watch, base.require), func(*scenario) {}),
		with(everybody, "the same rules for who knows nobody and names the whole network, the hostile third too: more than a third must agree", func(s *scenario) {
			s.ban, s.watch, s.require = policy.Recommended("everyone", s.operators-1)
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
			s.ban = fmt.Sprintf("%d of everyone", s.operators/3+1)
		}),
		with("recommended, no watch", "without the watch rule", func(s *scenario) { s.watch = "" }),
		with("recommended, weak evidence", "without `require`", func(s *scenario) { s.require = "" }),
		with("recommended, 2 traitors", "two of the ten are hostile", func(s *scenario) { s.coreHostile = 2 }),
		with("recommended, 3 traitors", "three of the ten are hostile, as many as the rules bear", func(s *scenario) { s.coreHostile = 3 }),
		with("recommended, 4 traitors", "four of the ten are hostile, as many as the ban rule needs", func(s *scenario) { s.coreHostile = 4 }),
		with("4 traitors, no budgets", "the same without budgets, holds, strikes and probation", func(s *scenario) {
			s.coreHostile = 4
			bare(s)
		}),
		with("watch anyone of core", "`watch = \"any of core\"`: one hostile operator is enough to have innocents watched", func(s *scenario) { s.watch = "any of core" }),
		with("a small core", "five that one knows, one hostile: `ban = \"2 of core\"`, `watch = \"any of core\"`", func(s *scenario) {
			s.coreSize, s.ban, s.watch = 5, "2 of core", "any of core"
		}),
		with("a core of friends", "ten that one knows, none hostile: `ban = \"any of core\"`", func(s *scenario) {
			s.coreHostile, s.ban, s.watch = 0, "any of core", ""
		}),
	}
}

func number(n int) *int { return &n }

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
)

// event is something that happens at a host, or a claim of the hostile.
type event struct {
	at       time.Time
	host     int // index of the honest operator; -1: a claim of the hostile
	target   ban.Target
	innocent bool
	first    bool // the first attempt of a visit
	hostile  int  // who claims
}

// host is one honest operator's node.
type host struct {
	ledger *ledger.Ledger
	feed   ban.Feed
	fails  map[ban.Target][]time.Time
}

// result is what a scenario came to.
type result struct {
	scenario
	met, banned, watched int // visits of attackers, and how they were met
	byDay                [7]struct{ met, protected int }
	delays               []time.Duration // first detection anywhere to protection at a host
	attemptsSeen         int             // attempts of attackers that reached a service
	innocents            int             // innocent addresses that peers' claims banned somewhere
	typos                int             // innocent addresses that were banned for one wrong password
	refused              int             // visits of innocents that were refused
	innocentVisits       int
	critical             int // gateways and resolvers banned somewhere
	waiting              int // hostile claims that wait at the end, per host
	quarantined          int // hostile operators in quarantine at the end, per host
}

func (r result) coverage() float64 { return 100 * float64(r.banned+r.watched) / float64(max(1, r.met)) }

func (r result) summary() string {
	return fmt.Sprintf("%.1f %% met as banned or watched, %d innocents, %d critical", r.coverage(), r.innocents, r.critical)
}

func (r result) median() time.Duration {
	if len(r.delays) == 0 {
		return 0
	}
	slices.Sort(r.delays)
	return r.delays[len(r.delays)/2]
}

func address(kind, n int) ban.Target {
	t, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{byte(20 + kind), byte(n >> 16), byte(n >> 8), byte(n)}))
	if err != nil {
		panic(err)
	}
	return t
}

// Kinds of addresses.
const (
	attackerKind = iota
	innocentKind
	criticalKind // gateways, resolvers
	randomKind   // that nobody has, to fill feeds
)

func simulate(s scenario) (result, error) {
	rng := rand.New(rand.NewPCG(7, uint64(s.operators))) // the same week for every scenario of a size
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	now := start
	honest := s.operators - s.operators/3
	r := result{scenario: s}

	ids := make([]ban.Feed, s.operators)
	for i := range ids {
		name := fmt.Sprint("operator", i)
		ids[i] = ban.Feed{Topic: "sshd", Operator: ban.OperatorOf([]byte(name)), Node: ban.NodeOf([]byte(name))}
	}
	var criticalEntries []neverban.Entry
	for n := range 20 {
		p, _ := address(criticalKind, n).Prefix()
		criticalEntries = append(criticalEntries, neverban.Entry{Prefix: p, Source: neverban.SourceGateway, Reason: "needed"})
	}
	never := neverban.NewSet(criticalEntries)

	hosts := make([]*host, honest)
	for i := range hosts {
		p, err := rules(s, i, ids, start, rng)
		if err != nil {
			return r, err
		}
		o := ledger.Options{Policy: p, Now: func() time.Time { return now }}
		if s.neverBan {
			o.NeverBan = never
		}
		l, err := ledger.Open(o)
		if err != nil {
			return r, err
		}
		hosts[i] = &host{ledger: l, feed: ids[i], fails: map[ban.Target][]time.Time{}}
	}

	events := schedule(s, honest, start, rng)
	kinds := func(t ban.Target) int {
		p, _ := t.Prefix()
		return int(p.Addr().As4()[0]) - 20
	}
	innocents, typos, critical := map[ban.Target]bool{}, map[ban.Target]bool{}, map[ban.Target]bool{}
	typed := map[ban.Target]map[int]bool{} // own bans for a typo, by host
	detected := map[ban.Target]time.Time{}
	protected := map[[2]any]bool{}
	collect := func(i int) {
		for _, c := range hosts[i].ledger.Take(1 << 30) {
			if !c.Ban {
				continue
			}
			switch kinds(c.Target) {
			case innocentKind:
				if typed[c.Target][i] {
					typos[c.Target] = true
				} else {
					innocents[c.Target] = true
				}
			case criticalKind:
				critical[c.Target] = true
			case attackerKind:
				key := [2]any{i, c.Target}
				if at, ok := detected[c.Target]; ok && !protected[key] {
					protected[key] = true
					r.delays = append(r.delays, now.Sub(at))
				}
			}
		}
	}
	share := func(from int, c ban.Change) error {
		if !s.shared {
			return nil
		}
		for i, h := range hosts {
			if i != from && h.ledger.Policy().Knows("sshd", c.Feed.Operator) {
				if err := h.ledger.Apply(c); err != nil {
					return err
				}
				collect(i)
			}
		}
		return nil
	}
	blocked := map[[2]any]bool{} // a visit that was met as banned and gives up
	lastExpiry := start
	for _, e := range events {
		now = e.at
		if now.Sub(lastExpiry) >= 10*time.Minute {
			lastExpiry = now
			for i, h := range hosts {
				h.ledger.Expire(now)
				collect(i)
			}
		}
		if e.host < 0 {
			if s.quiet {
				continue
			}
			claim := ban.Claim{Target: e.target, End: now.Add(10 * banTime).Truncate(time.Minute), Class: ban.ClassAuth, Hits: 20, Established: true}
			if err := share(-1, ban.Change{Feed: ids[e.hostile], Claims: []ban.Claim{claim}}); err != nil {
				return r, err
			}
			continue
		}
		h := hosts[e.host]
		isBanned, isWatched := standing(h.ledger, e.target)
		key := [2]any{e.host, e.target}
		if e.innocent {
			if e.first {
				r.innocentVisits++
				if isBanned {
					r.refused++
				}
			}
		} else if e.first {
			r.met++
			day := &r.byDay[min(6, int(now.Sub(start)/(24*time.Hour)))]
			day.met++
			delete(blocked, key)
			switch {
			case isBanned:
				r.banned++
				day.protected++
				blocked[key] = true
			case isWatched:
				r.watched++
				day.protected++
			}
		}
		if isBanned || blocked[key] {
			continue
		}
		if !e.innocent {
			r.attemptsSeen++
		} else if e.first && !wrongPassword(e) {
			continue
		}
		need := maxRetry
		if isWatched {
			need = 1
		}
		times := append(h.fails[e.target], now)
		for len(times) > 0 && now.Sub(times[0]) > findTime {
			times = times[1:]
		}
		h.fails[e.target] = times
		if len(times) < need {
			continue
		}
		delete(h.fails, e.target)
		if e.innocent {
			if typed[e.target] == nil {
				typed[e.target] = map[int]bool{}
			}
			typed[e.target][e.host] = true
		}
		claim := ban.Claim{Target: e.target, End: now.Add(banTime).Truncate(time.Minute).Add(time.Minute), Class: ban.ClassAuth, Hits: uint8(len(times)), Established: true}
		if err := h.ledger.BanLocal("sshd", claim, ledger.Evidence{}); err != nil {
			if errors.Is(err, ledger.ErrNeverBan) {
				continue
			}
			return r, err
		}
		if _, ok := detected[e.target]; !ok && !e.innocent {
			detected[e.target] = now
		}
		collect(e.host)
		if err := share(e.host, ban.Change{Feed: h.feed, Claims: []ban.Claim{claim}}); err != nil {
			return r, err
		}
	}
	r.innocents, r.typos, r.critical = len(innocents), len(typos), len(critical)
	for _, h := range hosts {
		for _, x := range h.ledger.Holds() {
			r.waiting += x.Claims
		}
		for _, p := range h.ledger.Peers() {
			if p.Quarantine != nil {
				r.quarantined++
			}
		}
	}
	r.waiting /= len(hosts)
	return r, nil
}

// standing says how a host meets an address.
func standing(l *ledger.Ledger, t ban.Target) (banned, watched bool) {
	action := l.Action("sshd", t)
	return action == policy.Ban, action == policy.Watch
}

// wrongPassword says whether an innocent's visit begins with a typing error.
// The schedule marks it by a second event of the same visit.
func wrongPassword(e event) bool { return e.hostile == 1 }

// rules compiles the policy of an honest operator.
func rules(s scenario, self int, ids []ban.Feed, start time.Time, rng *rand.Rand) (*policy.Policy, error) {
	src := policy.Source{
		Operators: map[string]policy.OperatorSource{}, Groups: map[string][]string{},
		Topics: map[string]policy.TopicSource{"sshd": {Ban: s.ban, Watch: s.watch, Require: s.require, Limits: s.limits}},
	}
	honest := s.operators - s.operators/3
	for i, f := range ids {
		if i == self {
			continue
		}
		o := policy.OperatorSource{ID: f.Operator.String()}
		if s.probation {
			o.Since = start.Add(-48 * time.Hour) // a day of it is left
		}
		src.Operators[fmt.Sprint("operator", i)] = o
	}
	core := map[int]bool{}
	for len(core) < s.coreHostile {
		core[honest+rng.IntN(s.operators-honest)] = true
	}
	for len(core) < s.coreSize {
		if i := rng.IntN(honest); i != self {
			core[i] = true
		}
	}
	for i := range ids {
		if core[i] {
			src.Groups["core"] = append(src.Groups["core"], fmt.Sprint("operator", i))
		}
	}
	return policy.Compile(src, nil)
}

// schedule makes the week's events in order.
func schedule(s scenario, honest int, start time.Time, rng *rand.Rand) []event {
	var events []event
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
					events = append(events, event{at: at, host: h, target: target, first: n == 0})
					at = at.Add(time.Duration(5+rng.IntN(40)) * time.Second)
				}
			}
		}
	}
	for i := range s.innocents {
		target := address(innocentKind, i)
		for range 7 * (1 + rng.IntN(2)) {
			e := event{at: start.Add(time.Duration(rng.Int64N(int64(week)))), host: rng.IntN(honest), target: target, innocent: true, first: true}
			if rng.Float64() < typo {
				e.hostile = 1
			}
			events = append(events, e)
		}
	}
	// The hostile agree: all of them claim the same innocents and what nodes
	// need, some slowly, some at once, and some flood.
	for h := range s.operators - honest {
		who := honest + h
		at := start.Add(turnAt)
		claim := func(t ban.Target, pause time.Duration) {
			at = at.Add(pause)
			if at.Before(start.Add(week)) {
				events = append(events, event{at: at, host: -1, target: t, hostile: who})
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
		case 2: // what nodes need, then the innocents
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
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return events
}
