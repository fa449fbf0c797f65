package federation

import (
	"time"

	"banmesh/internal/wire"
)

// status gives the link's standing.
func (l *link) status() BrokerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var refusal wire.Refusal
	if l.refusal.Reason != "" && l.now().Sub(l.refusedAt).Abs() < refusalShown {
		refusal = l.refusal
	}
	return BrokerStatus{
		URL: l.url.Redacted(), Connected: l.connected, Health: l.health, Since: l.since, Error: l.lastError, Advice: l.advice, Queued: len(l.out), Refused: len(l.refused), Lost: l.back.lost, Refusal: refusal,
		Unanswered: len(l.unanswered), UnansweredSince: l.unanswered.oldest(), Contended: l.contended >= contendedFrom && !(l.connected && l.now().Sub(l.since) >= contendedWithin),
	}
}

// refusedFilters are the filters that the broker refuses now.
func (l *link) refusedFilters() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Health is how a broker treats us.
type Health string

// Healths. The first is that of a link that did not get to an answer yet.
const (
	HealthUnknown     Health = ""
	HealthConnected   Health = "connected"
	HealthUnreachable Health = "unreachable" // or it refuses us; Error says why
	HealthMisbehaving Health = "misbehaving" // it sends packets or messages that no honest broker sends
)

// A BrokerStatus says how the connection to a broker stands.
type BrokerStatus struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Health    Health    `json:"health"`
	Since     time.Time `json:"since,omitzero"` // of the last connection
	Error     string    `json:"error,omitempty"`
	Advice    string    `json:"advice,omitempty"` // for a person
	Queued    int       `json:"queued"`
	Refused   int       `json:"refused,omitempty"` // subscriptions that it refuses; asked again
	Lost      int       `json:"lost,omitempty"`    // messages that it acknowledged and does not keep; sent again
	// Refusal is why it keeps none of some messages, as it says itself; zero
	// where it said nothing.
	Refusal wire.Refusal `json:"refusal,omitzero"`
	// Unanswered counts messages that it has not acknowledged, the oldest since
	// UnansweredSince.
	Unanswered      int       `json:"unanswered,omitempty"`
	UnansweredSince time.Time `json:"unanswered_since,omitzero"`
	// Contended says that it ends the connection again and again soon after it was
	// made, as a broker does when another client logs in with the same keys.
	Contended bool `json:"contended,omitempty"`
}

// unanswered says that the broker takes too long to acknowledge.
func (b BrokerStatus) unanswered(now time.Time) bool {
	return b.Unanswered > 0 && now.Sub(b.UnansweredSince) > unansweredAfter
}

// sentAt is when each of the messages was sent that are not acknowledged, in
// order.
type sentAt []time.Time

func (s sentAt) oldest() time.Time {
	if len(s) == 0 {
		return time.Time{}
	}
	return s[0]
}

// contendedFrom is how many connections in a row the broker has to end soon
// after they were made, with none that it refuses between, before another
// client with these keys is suspected; contendedWithin is how soon.
const (
	contendedFrom   = 4
	contendedWithin = 2 * backoffMost
)

// ended notes how a connection ended: made says that there was one, and lasted
// how long.
func (l *link) ended(made bool, lasted time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unanswered = nil
	switch {
	case !made:
		l.contended = 0 // it does not answer at all: something else is the matter
	case lasted >= contendedWithin:
		l.contended = 1
	default:
		l.contended++
	}
	if l.contended == contendedFrom {
		l.log.Warn("broker_contended: another machine may use this node's keys", "broker", l.url.Redacted())
	}
}
