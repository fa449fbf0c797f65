package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/span"
)

// host is one honest operator's node: the ledger and policy of the agent
// itself, and a model of detection, guests and the measure of peers.
type host struct {
	ledger *ledger.Ledger
	feed   ban.Feed
	fails  map[ban.Target][]time.Time
	own    map[ban.Target]time.Time // ends of its own bans
	guest  map[ban.Target]bool      // who authenticated here
	told   map[ban.Target]time.Time // when weak evidence was last shared
	core   []ban.Operator
	peers  map[ban.Operator]*peer
}

// peer is what a host measures of another operator.
type peer struct {
	claims, guests map[ban.Target]bool // what it claimed, weak evidence left out
	suspended      bool
}

func newHost(feed ban.Feed, p *policy.Policy) *host {
	return &host{
		feed: feed, core: p.Core(topic),
		fails: map[ban.Target][]time.Time{}, own: map[ban.Target]time.Time{}, guest: map[ban.Target]bool{},
		told: map[ban.Target]time.Time{}, peers: map[ban.Operator]*peer{},
	}
}

// standing says how the host meets an address.
func (h *host) standing(t ban.Target) policy.Action { return h.ledger.Action(topic, t) }

// Protects implements [policy.Protection] for the host's guests.
func (h *host) Protects(t ban.Target) (why string, ok bool) {
	return "it authenticated here", h.guest[t]
}

// fail counts a failure at the host's own clock and says whether the threshold
// is reached.
func (h *host) fail(t ban.Target, now time.Time, need, lines int) (hits int, reached bool) {
	times := h.fails[t]
	for range lines {
		times = append(times, now)
	}
	for len(times) > 0 && now.Sub(times[0]) > findTime {
		times = times[1:]
	}
	h.fails[t] = times
	if len(times) < need {
		return len(times), false
	}
	delete(h.fails, t)
	return len(times), true
}

// threshold is how many failures ban an address at this host.
func (h *host) threshold(s signs, t ban.Target, action policy.Action) int {
	usual := maxRetry
	if s.strangers > 0 && !h.guest[t] {
		usual = s.strangers
	}
	return action.Offences(usual)
}

// hears notes a claim of another operator, for the measure.
func (h *host) hears(o ban.Operator, t ban.Target) {
	p := h.peers[o]
	if p == nil {
		p = &peer{claims: map[ban.Target]bool{}, guests: map[ban.Target]bool{}}
		h.peers[o] = p
	}
	p.claims[t] = true
	if h.guest[t] {
		p.guests[t] = true
	}
}

func (p *peer) record() policy.Record {
	return policy.Record{Claims: len(p.claims), Guests: len(p.guests)}
}

// suspends says whether an operator counts for nothing here.
func (h *host) suspends(o ban.Operator) bool {
	p := h.peers[o]
	return p != nil && p.suspended
}

// admit makes an address a guest, which counts against everyone that claims it.
func (h *host) admit(t ban.Target) (against []ban.Operator) {
	if h.guest[t] {
		return nil
	}
	h.guest[t] = true
	h.ledger.Reconsider(t)
	for o, p := range h.peers {
		if p.claims[t] {
			p.guests[t] = true
			against = append(against, o)
		}
	}
	slices.SortFunc(against, func(a, b ban.Operator) int { return slices.Compare(a[:], b[:]) })
	return against
}

// mistaken says whether an operator's claims are of guests so often that it is
// to count for nothing.
func (h *host) mistaken(o ban.Operator) bool {
	if len(h.peers[o].guests) == 0 {
		return false
	}
	records := map[ban.Operator]policy.Record{}
	for _, c := range h.core {
		if p := h.peers[c]; p != nil {
			records[c] = p.record()
		}
	}
	records[o] = h.peers[o].record()
	return slices.Contains(policy.Mistaken(records, h.core), o)
}

// drawCore draws the operators that an honest one knows.
func drawCore(s scenario, self int, rng *rand.Rand) map[int]bool {
	honest := s.operators - s.operators/3
	members := map[int]bool{}
	for len(members) < s.coreHostile {
		members[honest+rng.IntN(s.operators-honest)] = true
	}
	for len(members) < s.coreSize {
		if i := rng.IntN(honest); i != self {
			members[i] = true
		}
	}
	return members
}

// rules compiles the policy of an honest operator that knows members.
func rules(s scenario, self int, members map[int]bool, ids []ban.Feed, start time.Time) (*policy.Policy, error) {
	rule := policy.TopicSource{Ban: s.ban, Watch: s.watch, Suspect: s.suspect, Require: s.require, Limits: s.limits}
	if s.ttl > 0 {
		rule.TTL = span.Format(s.ttl)
	}
	src := policy.Source{
		Operators: map[string]policy.OperatorSource{}, Groups: map[string][]string{},
		Topics: map[string]policy.TopicSource{topic: rule},
	}
	for i, f := range ids {
		if i == self {
			continue
		}
		name := fmt.Sprint("operator", i)
		o := policy.OperatorSource{ID: f.Operator.String()}
		if s.probation {
			o.Since = start.Add(-48 * time.Hour) // a day of it is left
		}
		src.Operators[name] = o
		if members[i] {
			src.Groups["core"] = append(src.Groups["core"], name)
		}
	}
	return policy.Compile(src, nil)
}
