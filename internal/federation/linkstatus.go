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
	return BrokerStatus{URL: l.url.Redacted(), Connected: l.connected, Health: l.health, Since: l.since, Error: l.lastError, Advice: l.advice, Queued: len(l.out), Refused: l.refused, Lost: l.back.lost, Refusal: refusal}
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
	Advice    string    `json:"advice,omitempty"` // what a person can do about it
	Queued    int       `json:"queued"`
	Refused   int       `json:"refused,omitempty"` // subscriptions that it refuses; asked again
	Lost      int       `json:"lost,omitempty"`    // messages that it acknowledged and does not keep; sent again
	// Refusal is why it keeps none of some messages, as it says itself; zero
	// where it said nothing.
	Refusal wire.Refusal `json:"refusal,omitzero"`
}
