package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/span"
)

// host is one honest operator's node: the ledger and policy of the agent
// itself, and a model of detection and logins.
type host struct {
	ledger *ledger.Ledger
	feed   ban.Feed
	core   []ban.Operator // whom its ban rule names
	fails  map[ban.Target][]time.Time
	own    map[ban.Target]time.Time // ends of its own bans
	guest  map[ban.Target]bool      // who authenticated here
	told   map[ban.Target]time.Time // when weak evidence was last shared
	// claims are those that each operator made, weak ones left out, ofGuests how
	// many were of guests. They say only whether measuring could find anybody.
	claims    map[ban.Operator]set
	ofGuests  map[ban.Operator]int
	measure   bool // it could
	suspended map[ban.Operator]bool
}

// fewGuests is how many guests an operator has to claim to be measured at all.
const fewGuests = 4

func newHost(feed ban.Feed, p *policy.Policy) *host {
	return &host{
		feed: feed, core: p.Core(topic),
		fails: map[ban.Target][]time.Time{}, own: map[ban.Target]time.Time{}, guest: map[ban.Target]bool{},
		told: map[ban.Target]time.Time{}, claims: map[ban.Operator]set{}, ofGuests: map[ban.Operator]int{}, suspended: map[ban.Operator]bool{},
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

// hears notes a claim of another operator.
func (h *host) hears(o ban.Operator, t ban.Target) {
	if h.claims[o] == nil {
		h.claims[o] = set{}
	}
	if !h.claims[o][t] {
		h.claims[o][t] = true
		if h.guest[t] {
			h.doubts(o)
		}
	}
}

func (h *host) doubts(o ban.Operator) {
	h.ofGuests[o]++
	h.measure = h.measure || h.ofGuests[o] >= fewGuests && !h.suspended[o]
}

// admit makes an address a guest, which counts against everyone that claims it.
func (h *host) admit(t ban.Target) {
	if h.guest[t] {
		return
	}
	h.guest[t] = true
	h.ledger.Reconsider(t)
	for o, claims := range h.claims {
		if claims[t] {
			h.doubts(o)
		}
	}
}

// suspend lets the ledger measure its peers, as an agent does every minute.
func (h *host) suspend() error {
	if !h.measure {
		return nil
	}
	h.measure = false
	if _, err := h.ledger.Peers.Suspend(); err != nil {
		return err
	}
	for _, p := range h.ledger.Peers.List() {
		if p.Quarantine != nil { // for strikes, some
			h.suspended[p.Operator] = true
		}
	}
	return nil
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
