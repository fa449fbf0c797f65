// Package policy decides from the claims about a target how it is treated here: ban it,
// watch it, hold it for a person's approval, or ignore it, and why. A [Policy]
// is compiled from the operator's own rules and is immutable; [Policy.Judge]
// is a pure function of claims, disputes, protections and the clock, so the
// order in which claims arrived cannot matter and every verdict can be
// replayed and explained. It does no I/O and has no clock of its own.
//
// Fixed in code, whatever the rules say: protections beat all claims; the
// node's own bans need no vote, and those of its operator's other nodes none
// in topics that it accepts; weak evidence bans nobody; a ban of a target that
// was watched is a vote and never the first; no peer bans a guest; operators
// are counted, never keys, nodes or addresses; all that is reached through one
// followed operator is one vote together with that operator's own; an operator
// that is not named, nor reached by a follow, is ignored.
package policy

import (
	"maps"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/strict"
)

// A Policy is a compiled set of rules. It is immutable and may be used from
// several goroutines.
type Policy struct {
	source    Source
	operators map[ban.Operator]*operator
	byName    map[string]*operator
	topics    map[ban.Topic]*rules
	groups    map[string]*group
	trust     Trust
	imported  map[ban.Operator]*imported
	self      ban.Operator // zero: none
	warnings  strict.Faults
}

// operator is a named operator.
type operator struct {
	name      string
	id        ban.Operator
	weight    int
	probation time.Time // votes only count for watch before this
}

// rules are a topic's, compiled.
type rules struct {
	topic               ban.Topic
	ban, watch, suspect *node  // nil: never
	dispute             *node  // nil: disputes lift nothing
	everyone            *group // all whom the rules name
	require             byKind[evidence]
	ttl                 byKind[int64] // seconds
	prefix4             int
	prefix6             int
	limits              Limits
	accepted            bool // own operator's other nodes speak for this one
}

// Nothing is the policy of a node without rules: nothing remote is applied.
func Nothing() *Policy {
	p, err := Compile(Source{}, nil)
	if err != nil {
		panic("policy: the empty policy does not compile: " + err.Error())
	}
	return p
}

// Source gives the rules that the policy was compiled from.
func (p *Policy) Source() Source { return p.source }

// Warnings are of rules that are allowed and hardly meant, such as a quorum
// that can never be reached.
func (p *Policy) Warnings() strict.Faults { return p.warnings }

// WithTrust compiles the same rules against other published trust lists.
func (p *Policy) WithTrust(t Trust) (*Policy, error) { return Compile(p.source, t) }

// Name gives the operator's name in the rules, or that of an import; ok is false for one that the
// rules do not name (it may still be reached by a follow, see [Policy.Knows]).
func (p *Policy) Name(o ban.Operator) (name string, ok bool) {
	if op := p.operators[o]; op != nil {
		return op.name, true
	}
	return p.Import(o)
}

// Operator gives the operator of a name.
func (p *Policy) Operator(name string) (ban.Operator, bool) {
	if op := p.byName[name]; op != nil {
		return op.id, true
	}
	if o := ban.Import(name).Operator(); p.imported[o] != nil {
		return o, true
	}
	return ban.Operator{}, false
}

// Probation gives the end of a named operator's probation, during which its
// claims are watched and ban nothing. The zero time means none.
func (p *Policy) Probation(o ban.Operator) time.Time {
	if op := p.operators[o]; op != nil {
		return op.probation
	}
	return time.Time{}
}

// NextProbation is the first end of a probation after now, or the zero time.
// All verdicts may change then.
func (p *Policy) NextProbation(now time.Time) (next time.Time) {
	for _, op := range p.operators {
		if op.probation.After(now) && (next.IsZero() || op.probation.Before(next)) {
			next = op.probation
		}
	}
	return next
}

// Topics gives the topics that have rules, sorted.
func (p *Policy) Topics() []ban.Topic { return slices.Sorted(maps.Keys(p.topics)) }

// Operators gives everyone whose claims count for something in the topic, by
// name or through a follow, sorted: the feeds that are worth hearing.
func (p *Policy) Operators(topic ban.Topic) []ban.Operator {
	r := p.topics[topic]
	if r == nil {
		return nil
	}
	all := slices.Collect(maps.Keys(r.everyone.members))
	if p.speaks(r, p.self) && !slices.Contains(all, p.self) {
		all = append(all, p.self)
	}
	slices.SortFunc(all, compareOperators)
	return all
}

// As gives the same policy for a node of an operator, whose other nodes then
// speak for it.
func (p *Policy) As(self ban.Operator) *Policy {
	as := *p
	as.self, as.source.Self = self, &self
	return &as
}

// Self is the operator of this node, zero if it has none.
func (p *Policy) Self() ban.Operator { return p.self }

// speaks says whether the operator is this node's own and speaks for it in a
// topic.
func (p *Policy) speaks(r *rules, o ban.Operator) bool {
	return r.accepted && o == p.self && p.self != ban.Operator{}
}

// Accepted says whether the node's own operator speaks for it in the topic.
func (p *Policy) Accepted(topic ban.Topic) bool {
	r := p.topics[topic]
	return r != nil && r.accepted
}

// Knows says whether the operator's claims count for something in the topic.
func (p *Policy) Knows(topic ban.Topic, o ban.Operator) bool {
	r := p.topics[topic]
	if x := p.imported[o]; x != nil {
		return x.topics[topic]
	}
	return r != nil && (r.knows(o) || p.speaks(r, o))
}

// Follows gives the operators whose published trust lists the rules follow,
// sorted. Their lists are needed for [Compile].
func (p *Policy) Follows() []ban.Operator {
	all := map[ban.Operator]bool{}
	for _, g := range p.groups {
		for _, f := range g.follows {
			all[f.of.id] = true
			for o := range f.reached {
				all[o] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), compareOperators)
}

// LimitsOf gives the bounds of an operator in the topic.
func (p *Policy) LimitsOf(topic ban.Topic, o ban.Operator) Limits {
	if x := p.imported[o]; x != nil {
		return x.limits
	}
	return p.Limits(topic)
}

// Limits gives the bounds of each operator in the topic that is no import.
func (p *Policy) Limits(topic ban.Topic) Limits {
	if r := p.topics[topic]; r != nil {
		return r.limits
	}
	return DefaultLimits()
}

func compareOperators(a, b ban.Operator) int { return slices.Compare(a[:], b[:]) }
