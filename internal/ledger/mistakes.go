package ledger

import (
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// maxMistakes bounds how many withdrawals are remembered, of all peers.
const maxMistakes = 4096

// mistakes are the latest claims that peers withdrew as mistakes, so that an
// explanation can say so. They are kept in memory alone.
type mistakes struct {
	list []mistake
	next int // the oldest one, once the list is full
}

type mistake struct {
	claim ban.Claim
	feed  ban.Feed
	since time.Time // when the claim had arrived
}

func (m *mistakes) note(x mistake) {
	if len(m.list) < maxMistakes {
		m.list = append(m.list, x)
		return
	}
	m.list[m.next] = x
	m.next = (m.next + 1) % maxMistakes
}

// withMistakes adds to the standings of a target the claims that their authors
// withdrew as mistakes, as long as they would have lasted, and if those authors
// claim nothing of it now.
func (l *book) withMistakes(target ban.Target, standings []Standing, now time.Time) []Standing {
	for _, m := range l.mistakes.list {
		if m.claim.Target != target || !m.claim.End.After(now) {
			continue
		}
		i := slices.IndexFunc(standings, func(s Standing) bool { return s.Topic == m.feed.Topic && s.Target == target })
		if i < 0 {
			standings = append(standings, Standing{Topic: m.feed.Topic, Target: target, Why: policy.ReasonMistake})
			i = len(standings) - 1
		}
		again := slices.ContainsFunc(standings[i].Claims, func(c Claimed) bool { return c.Feed == m.feed })
		if !again {
			standings[i].Claims = append(standings[i].Claims, Claimed{Claim: m.claim, Feed: m.feed, Since: m.since, WhyNot: policy.ReasonMistake})
		}
	}
	return standings
}
