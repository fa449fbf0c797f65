package ledger

import (
	"time"

	"banmesh/internal/ban"
)

// maxSightings bounds the sightings that are told at once.
const maxSightings = 10_000

// A Sighting is an observation of a target in a topic that was not enough for
// a ban.
type Sighting struct {
	Topic  ban.Topic
	Target ban.Target
	Class  ban.Class
	Hits   int
	At     time.Time // of the last offence
	// Established says that every offence came over an established connection.
	Established bool
}

// Sight has the node's feeds tell the sighting, as weak evidence for three days:
// it bans nobody here, and elsewhere it makes a target watched at most, where
// several operators say the same. Targets that may not be banned, and those of
// which this node says more already, are left out. It is durable when nil is
// returned.
func (l *Own) Sight(list []Sighting) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var records []ownRecord
	left := maxSightings - l.feeds.list[sightingFeed].live
	for _, x := range list {
		if x.At.After(now) {
			x.At = now
		}
		x.At = x.At.Truncate(time.Second) // a vote that ends as it begins is never in force
		b := Local{Topic: x.Topic, Source: SourceSighting, At: x.At, Claim: ban.Claim{
			Target: x.Target, End: x.At, Class: x.Class, Hits: uint8(min(max(x.Hits, 1), ban.MaxHits)), Established: x.Established,
		}}
		if l.mayBan(&b, now) != nil || l.saysMore(b, now) {
			continue
		}
		if l.voteOf(place{x.Topic, x.Target}, SourceSighting) == nil {
			if left <= 0 {
				continue
			}
			left--
		}
		records = append(records, ownRecord{topic: b.Topic, source: b.Source, claim: b.Claim, since: seconds(b.At)})
	}
	return l.commit(records, now, nil)
}

// saysMore says whether this node claims a target already, by a ban or by a
// sighting with as many offences.
func (l *Own) saysMore(b Local, now time.Time) bool {
	r, ok := l.recordAt(place{b.Topic, b.Claim.Target})
	if !ok {
		return false
	}
	for v := range l.table.votesOf(r) {
		if isOwn(v.feed) && v.kept(now) && (v.feed != sightingFeed || v.claim(b.Claim.Target).Hits >= b.Claim.Hits) {
			return true
		}
	}
	return false
}
