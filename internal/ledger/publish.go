package ledger

import (
	"cmp"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// claimsCount is how long this node stands by strong evidence of its own. A ban
// here often lasts an hour; how long its claim counts elsewhere is the reader's
// to say, who has to hear of three such hosts, by default within three days.
const claimsCount = policy.DefaultTTL

// told is the end that readers are told of an own vote, and until which it is
// kept: a claim on strong evidence outlives the ban, and a sighting was none.
func (v *vote) told() uint32 {
	if ban.Basis(v.flags&basisMask) != ban.BasisStrong && v.feed != sightingFeed {
		return v.end
	}
	return max(v.end, v.since+uint32(claimsCount/time.Second))
}

// kept says whether a vote is still worth keeping: a peer's until its end, an
// own one as long as readers are told of it.
func (v *vote) kept(now time.Time) bool {
	if isOwn(v.feed) {
		return int64(v.told()) > now.Unix()
	}
	return v.inForce(now)
}

// ownClaim gives this node's claim of a record's target, if any: of the
// claims of its sources the one with the strongest basis, and of those the one
// that lasts longest. When that ends, another takes its place.
func (l *book) ownClaim(r uint32, now time.Time) (c ban.Claim, ok bool) {
	target := l.table.target(r)
	for v := range l.table.votesOf(r) {
		if !isOwn(v.feed) || !v.kept(now) || !l.sources.names[v.feed].Published() {
			continue
		}
		x := v.claim(target)
		x.End = time.Unix(int64(v.told()), 0)
		// Of two that are as good one is chosen by their content, so that the feed
		// is the same after a restart.
		if !ok || cmp.Or(cmp.Compare(strength(x.Basis), strength(c.Basis)), x.Compare(c)) > 0 {
			c, ok = x, true
		}
	}
	return c, ok
}

// bansHere says whether an own claim of a record's target is in force.
func (l *book) bansHere(r uint32, now time.Time) bool {
	for v := range l.table.votesOf(r) {
		if isOwn(v.feed) && v.inForce(now) {
			return true
		}
	}
	return false
}

// strength orders the bases of own claims.
func strength(b ban.Basis) int {
	return [...]int{ban.BasisWeak: 0, ban.BasisHandedOver: 1, ban.BasisStrong: 2, ban.BasisDecided: 3}[b]
}

// Claims gives this node's own claims in a topic that are in force, sorted: the
// content of its feed.
func (l *Own) Claims(topic ban.Topic) []ban.Claim {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return nil
	}
	now := l.now()
	var claims []ban.Claim
	for r := range l.table.records(t) {
		if c, ok := l.ownClaim(r, now); ok && l.mayTell(c.Target) {
			claims = append(claims, c)
		}
	}
	slices.SortFunc(claims, ban.Claim.Compare)
	return claims
}

// mayTell says whether an own claim is for others' eyes: a private address that
// this node banned means nothing elsewhere, or someone else.
func (l *Own) mayTell(t ban.Target) bool {
	if l.neverPeers == nil {
		return true
	}
	_, never := l.neverPeers.Protects(t)
	return !never
}

// OwnChange is a change of this node's own claims in a topic.
type OwnChange struct {
	Topic     ban.Topic
	Claims    []ban.Claim
	Withdrawn []ban.Withdrawal
}

// Changed receives a value when there is something for
// [Own.Take].
func (l *Own) Changed() <-chan struct{} { return l.ownReady }

// Take gives the changes of the own claims since the last call, by topic and
// sorted. Claims that ended by themselves are not among them. A change that was
// taken and not published because of a crash shows as a difference to
// [Own.Claims].
func (l *Own) Take() []OwnChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	by := map[ban.Topic]*OwnChange{}
	for p, reason := range l.ownDirty {
		c := by[p.topic]
		if c == nil {
			c = &OwnChange{Topic: p.topic}
			by[p.topic] = c
		}
		if claim, ok := l.toTell(p, now); ok {
			c.Claims = append(c.Claims, claim)
		} else {
			c.Withdrawn = append(c.Withdrawn, ban.Withdrawal{Target: p.target, Reason: reason})
		}
	}
	clear(l.ownDirty)
	list := make([]OwnChange, 0, len(by))
	for _, c := range by {
		slices.SortFunc(c.Claims, ban.Claim.Compare)
		slices.SortFunc(c.Withdrawn, func(a, b ban.Withdrawal) int { return a.Target.Compare(b.Target) })
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b OwnChange) int { return cmp.Compare(a.Topic, b.Topic) })
	return list
}

func (l *Own) toTell(p place, now time.Time) (c ban.Claim, ok bool) {
	r, ok := l.recordAt(p)
	if !ok || !l.mayTell(p.target) {
		return c, false
	}
	return l.ownClaim(r, now)
}

func (l *book) notifyOwn() {
	if len(l.ownDirty) > 0 {
		select {
		case l.ownReady <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}

func sortLocal(list []Local) {
	slices.SortFunc(list, func(a, b Local) int {
		return cmp.Or(a.Claim.Target.Compare(b.Claim.Target), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Source, b.Source))
	})
}
