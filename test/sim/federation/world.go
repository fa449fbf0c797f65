package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
)

const topic = "sshd"

// pair is an address at a host.
type pair struct {
	host   int
	target ban.Target
}

// world runs a scenario.
type world struct {
	scenario
	start, now                  time.Time
	honest                      int
	ids                         []ban.Feed
	hosts                       []*host
	r                           result
	innocentSet, typoSet        set
	stallSet, criticalSet       set
	typed                       map[pair]bool // own bans for a wrong password
	detected                    map[ban.Target]time.Time
	protected, knew, turnedAway map[pair]bool
	pending                     []weakLine // in order of time
	tries                       map[ban.Target]int
	done                        set // low-rate addresses that were caught
}

// weakLine is a failure below the threshold, to be shared unless a success
// follows.
type weakLine struct {
	pair
	at time.Time
}

func simulate(s scenario) (result, error) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(s.operators))) // the same week for every scenario of a size
	w, err := newWorld(s, rng)
	if err != nil {
		return result{}, err
	}
	last, measured := w.start, w.start
	for _, e := range schedule(s, w.honest, w.start, rng) {
		if err := w.shareWeak(e.at); err != nil {
			return w.r, err
		}
		w.now = e.at
		if w.now.Sub(last) >= 10*time.Minute {
			last = w.now
			for i, h := range w.hosts {
				h.ledger.Expire(w.now)
				w.collect(i)
			}
		}
		if s.signs.measure && w.now.Sub(measured) >= time.Minute {
			measured = w.now
			for _, h := range w.hosts {
				if err := h.suspend(); err != nil {
					return w.r, err
				}
			}
		}
		if err := w.step(e); err != nil {
			return w.r, err
		}
	}
	return w.finish(), nil
}

func newWorld(s scenario, rng *rand.Rand) (*world, error) {
	w := &world{
		scenario: s, honest: s.operators - s.operators/3, r: result{scenario: s},
		start:       time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
		innocentSet: set{}, typoSet: set{}, stallSet: set{}, criticalSet: set{}, done: set{},
		typed: map[pair]bool{}, detected: map[ban.Target]time.Time{}, tries: map[ban.Target]int{},
		protected: map[pair]bool{}, knew: map[pair]bool{}, turnedAway: map[pair]bool{},
	}
	w.now = w.start
	for i := range s.operators {
		name := fmt.Sprint("operator", i)
		w.ids = append(w.ids, ban.Feed{Topic: topic, Operator: ban.OperatorOf([]byte(name)), Node: ban.NodeOf([]byte(name))})
	}
	var critical []neverban.Entry
	for n := range 20 {
		p, _ := address(criticalKind, n).Prefix()
		critical = append(critical, neverban.Entry{Prefix: p, Source: neverban.SourceGateway, Reason: "needed"})
	}
	never := neverban.NewSet(critical)
	for i := range w.honest {
		p, err := rules(s, i, drawCore(s, i, rng), w.ids, w.start)
		if err != nil {
			return nil, err
		}
		h := newHost(w.ids[i], p)
		o := ledger.Options{Policy: p, Now: func() time.Time { return w.now }}
		if s.neverBan {
			o.NeverBan = never
		}
		if s.signs.guests {
			o.Guests = h
		}
		if h.ledger, err = ledger.Open(o); err != nil {
			return nil, err
		}
		w.hosts = append(w.hosts, h)
	}
	return w, nil
}

func (w *world) step(e event) error {
	switch e.kind {
	case hostile:
		return w.lie(e)
	case visit:
		return w.visit(e)
	case lowTry:
		return w.try(e)
	case standing:
		return w.stall(e)
	}
	return w.attack(e)
}

// lie is a claim of a hostile operator.
func (w *world) lie(e event) error {
	return w.share(-1, said{w.ids[e.host], ban.Claim{
		Target: e.target, End: w.now.Add(10 * banTime).Truncate(time.Minute),
		Class: ban.ClassAuth, Hits: 20, Established: true, Basis: e.basis,
	}})
}

// attack is one attempt of an attacker.
func (w *world) attack(e event) error {
	h, key := w.hosts[e.host], pair{e.host, e.target}
	action := w.meets(key)
	if e.first {
		w.r.met++
		delete(w.turnedAway, key)
		switch {
		case action == policy.Ban:
			w.r.banned++
			w.turnedAway[key] = true
		case action == policy.Watch:
			w.r.watched++
		case action == policy.Suspect:
			w.r.suspected++
		}
	}
	if action == policy.Ban || w.turnedAway[key] {
		return nil
	}
	if e.trap {
		if action != policy.Watch {
			w.r.trapped++
		}
		w.turnedAway[key] = true
		return w.bans(key, 1)
	}
	if e.login {
		h.admit(key.target)
		action = w.meets(key)
	}
	w.r.attemptsSeen++
	if _, ok := w.detected[e.target]; ok {
		w.r.afterFirst++
	}
	_, err := w.fails(h, key, action, 1)
	return err
}

// visit is one of an innocent.
func (w *world) visit(e event) error {
	h, key := w.hosts[e.host], pair{e.host, e.target}
	action := w.meets(key)
	w.r.innocentVisits++
	if action == policy.Ban {
		w.r.refused++
		return nil
	}
	if e.wrong {
		w.typed[key] = true
		if banned, err := w.fails(h, key, action, 1); banned || err != nil {
			return err
		}
		delete(w.typed, key)
		if e.lost {
			return nil
		}
	}
	delete(h.fails, e.target)
	h.admit(e.target)
	return nil
}

// try is the only one that a low-rate attacker makes at a host.
func (w *world) try(e event) error {
	if w.done[e.target] {
		return nil
	}
	w.tries[e.target]++
	h, key := w.hosts[e.host], pair{e.host, e.target}
	action := w.meets(key)
	banned := action == policy.Ban
	if !banned {
		var err error
		if banned, err = w.fails(h, key, action, 1); err != nil {
			return err
		}
	}
	if banned {
		w.done[e.target] = true
		w.r.caught = append(w.r.caught, w.tries[e.target])
	}
	return nil
}

// stall is a node that stands still while clients are busy with it: each
// leaves as many lines as a threshold, all of one second.
func (w *world) stall(e event) error {
	if w.signs.episodes {
		return nil // one burst from several sources counts for nobody
	}
	for _, t := range e.busy {
		key := pair{e.host, t}
		if action := w.meets(key); action != policy.Ban {
			if _, err := w.fails(w.hosts[e.host], key, action, maxRetry); err != nil {
				return err
			}
		}
	}
	return nil
}

// fails counts failures, and bans where the threshold is reached.
func (w *world) fails(h *host, key pair, action policy.Action, lines int) (banned bool, err error) {
	hits, reached := h.fail(key.target, w.now, h.threshold(w.signs, key.target, action), lines)
	if reached {
		return true, w.bans(key, hits)
	}
	if w.signs.weak {
		w.pending = append(w.pending, weakLine{key, w.now})
	}
	return false, nil
}

// bans is the host's own decision, shared with whoever names it.
func (w *world) bans(key pair, hits int) error {
	h := w.hosts[key.host]
	claim := ban.Claim{Target: key.target, End: w.now.Add(banTime).Truncate(time.Minute).Add(time.Minute), Class: ban.ClassAuth, Hits: uint8(hits), Established: true, Basis: ban.BasisStrong}
	if err := h.ledger.Own.Ban(ledger.Local{Topic: topic, Claim: claim}); err != nil {
		if errors.Is(err, ledger.ErrNeverBan) {
			return nil
		}
		return err
	}
	h.own[key.target] = claim.End
	kind := kindOf(key.target)
	if _, ok := w.detected[key.target]; !ok && kind == attackerKind {
		w.detected[key.target] = w.now
	}
	w.collect(key.host)
	w.r.strong++
	for _, c := range h.ledger.Own.Take() {
		if w.signs.lasting && len(c.Claims) == 1 {
			claim = c.Claims[0]
		}
	}
	claim.Established = w.signs.watchedCount || hits >= 3
	list := []said{{h.feed, claim}}
	if w.conduct.quiet > 0 && !w.conduct.silent && (kind == attackerKind || kind == lowKind) {
		echo := claim
		echo.End, echo.Hits, echo.Established = w.now.Add(10*banTime).Truncate(time.Minute), 20, true
		for _, f := range w.ids[w.honest:] { // the quiet echo every true ban
			list = append(list, said{f, echo})
		}
	}
	return w.share(key.host, list...)
}

// said is a claim of an operator.
type said struct {
	feed  ban.Feed
	claim ban.Claim
}

// share gives claims about one address to every host that knows the operators,
// but to the one that says the first of them.
func (w *world) share(from int, list ...said) error {
	if !w.shared {
		return nil
	}
	changes := make([]ban.Change, 0, len(list))
	for i, h := range w.hosts {
		changes = changes[:0]
		for n, x := range list {
			if n == 0 && i == from || !h.ledger.Policy().Knows(topic, x.feed.Operator) {
				continue
			}
			if x.claim.Basis != ban.BasisWeak {
				h.hears(x.feed.Operator, x.claim.Target)
			}
			changes = append(changes, ban.Change{Feed: x.feed, Claims: []ban.Claim{x.claim}})
		}
		if len(changes) == 0 {
			continue
		}
		if err := h.ledger.Peers.Apply(changes...); err != nil {
			return err
		}
		w.collect(i)
		w.meets(pair{i, list[0].claim.Target})
	}
	return nil
}

// shareWeak shares the failures below the threshold that no success and no ban
// followed, up to a moment: one an address a day.
func (w *world) shareWeak(until time.Time) error {
	for len(w.pending) > 0 && !w.pending[0].at.Add(findTime).After(until) {
		line := w.pending[0]
		w.pending = w.pending[1:]
		h := w.hosts[line.host]
		last, told := h.told[line.target]
		due := line.at.Add(findTime)
		if len(h.fails[line.target]) == 0 || h.own[line.target].After(due) || told && due.Sub(last) < 24*time.Hour {
			continue
		}
		w.now = due
		h.told[line.target] = due
		w.r.weak++
		claim := ban.Claim{Target: line.target, End: due.Add(72 * time.Hour).Truncate(time.Minute), Class: ban.ClassAuth, Hits: 1, Established: true, Basis: ban.BasisWeak}
		if err := w.share(line.host, said{h.feed, claim}); err != nil {
			return err
		}
	}
	return nil
}

// meets says how a host meets an address, and notes when it knew it first.
func (w *world) meets(key pair) policy.Action {
	action := w.hosts[key.host].standing(key.target)
	if at, ok := w.detected[key.target]; ok && action >= policy.Watch && !w.knew[key] {
		w.knew[key] = true
		w.r.known = append(w.r.known, w.now.Sub(at))
	}
	return action
}

// collect notes the new bans at a host.
func (w *world) collect(i int) {
	h := w.hosts[i]
	for _, c := range h.ledger.Enforcement.Take(1 << 30) {
		if !c.Ban {
			continue
		}
		key := pair{i, c.Target}
		switch kindOf(c.Target) {
		case innocentKind:
			switch {
			case w.typed[key]:
				w.typoSet[c.Target] = true
			case h.own[c.Target].After(w.now):
				w.stallSet[c.Target] = true
			default:
				w.innocentSet[c.Target] = true
			}
		case criticalKind:
			w.criticalSet[c.Target] = true
		case attackerKind:
			w.meets(key)
			if at, ok := w.detected[c.Target]; ok && !w.protected[key] {
				w.protected[key] = true
				w.r.delays = append(w.r.delays, w.now.Sub(at))
			}
		}
	}
}

func (w *world) finish() result {
	r := &w.r
	r.innocents, r.typos, r.stalled, r.critical = len(w.innocentSet), len(w.typoSet), len(w.stallSet), len(w.criticalSet)
	r.low = w.conduct.lowRate
	honest := map[ban.Operator]bool{}
	for i := range w.honest {
		honest[w.ids[i].Operator] = true
	}
	for _, h := range w.hosts {
		for _, x := range h.ledger.Peers.Holds() {
			r.waiting += x.Claims
		}
		for _, p := range h.ledger.Peers.List() {
			if p.Quarantine != nil {
				r.quarantined++
			}
		}
		for _, o := range h.core {
			if honest[o] {
				r.edges++
				if h.suspended[o] {
					r.edgesLost++
				}
			}
		}
	}
	r.waiting /= len(w.hosts)
	return *r
}
