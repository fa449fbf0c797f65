package agent

import (
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/ledger"
)

// latency times how long bans take until the kernel has them: this node's from the
// line in the log, those of peers from the arrival of the claim.
type latency struct {
	line, claim *api.Latency
	now         func() time.Time
}

func newLatency(now func() time.Time) *latency {
	return &latency{line: api.NewLineLatency(now), claim: api.NewClaimLatency(now), now: now}
}

// decided is told of a decision of detection before it is carried out.
func (l *latency) decided(v detect.Decision) { l.line.Begin(v.Topic, v.Target, v.Last) }

// refused is told of a decision that bans nobody.
func (l *latency) refused(v detect.Decision) { l.line.Forget(v.Topic, v.Target) }

// heard is told of a change of a peer's feed before it counts. What comes with a
// whole feed is not timed: it is old.
func (l *latency) heard(c ban.Change) {
	if c.Reset {
		return
	}
	now := l.now()
	for i := range c.Claims {
		l.claim.Begin(c.Feed.Topic, c.Claims[i].Target, now)
	}
}

// inKernel is told of a ban that the kernel has taken.
func (l *latency) inKernel(c ledger.Change) {
	if c.Own {
		l.line.End(c.Topic, c.Target)
	} else {
		l.claim.End(c.Topic, c.Target)
	}
}
