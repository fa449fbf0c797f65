package policy

import (
	"time"

	"banmesh/internal/ban"
)

// counts gives the worth of another node's vote: [ReasonNone] for a ban, and
// first if it may be a quorum's first vote; [ReasonSecond] for a ban that
// others claim too; [ReasonHeld], [ReasonProbation] and [ReasonEvidence] for
// watching only, [ReasonWeak] for that where several say so, anything else for
// nothing.
func (p *Policy) counts(r *rules, v *Vote, now int64) (why Reason, first bool) {
	switch {
	case v.Quarantined:
		return ReasonQuarantine, false
	case v.Rejected:
		return ReasonRejected, false
	case v.End.Unix() <= now:
		return ReasonExpired, false
	case r.tooWide(v.Target):
		return ReasonPrefix, false
	case !r.knows(v.Operator) && !p.speaks(r, v.Operator):
		return ReasonUnknown, false
	case v.Since.Unix()+r.ttl.of(v.Class, v.Basis) <= now:
		return ReasonAged, false
	}
	basis := worth(v)
	if basis == ban.BasisWeak {
		return ReasonWeak, false
	}
	e := r.require.of(v.Class, v.Basis)
	if e.refuses(v, basis) {
		return ReasonEvidence, false
	}
	first = int(v.Hits) >= e.hits
	switch op := p.operators[v.Operator]; {
	case v.Held:
		return ReasonHeld, first
	case op != nil && op.probation.Unix() > now:
		return ReasonProbation, first
	case !first:
		return ReasonSecond, false
	}
	return ReasonNone, true
}

// Counts says why a vote does not count in full for a ban, or [ReasonNone].
func (p *Policy) Counts(topic ban.Topic, v Vote, now time.Time) Reason {
	r := p.topics[topic]
	switch {
	case v.Own && v.End.After(now):
		return ReasonNone
	case v.Own:
		return ReasonExpired
	case p.imported[v.Operator] != nil:
		return p.imported[v.Operator].counts(topic, &v, now.Unix())
	case r == nil:
		return ReasonNoRule
	}
	why, _ := p.counts(r, &v, now.Unix())
	full := why == ReasonNone || why == ReasonSecond || why == ReasonEvidence || why == ReasonWeak && !v.Held && v.unconfirmed()
	if full && p.speaks(r, v.Operator) {
		return ReasonOwnOperator
	}
	return why
}

// Accepts says whether the topic's rules, or an import in it, would look at a
// claim of target at all.
func (p *Policy) Accepts(topic ban.Topic, target ban.Target) bool {
	if r := p.topics[topic]; r != nil && !r.tooWide(target) {
		return true
	}
	for o := range p.imported {
		if p.ImportAccepts(o, topic, target) {
			return true
		}
	}
	return false
}

func (r *rules) tooWide(t ban.Target) bool {
	p, ok := t.Prefix()
	if !ok {
		return false
	}
	if p.Addr().Is4() {
		return p.Bits() < r.prefix4
	}
	return p.Bits() < r.prefix6
}

func (r *rules) knows(o ban.Operator) bool { return r.everyone.members[o] != nil }
