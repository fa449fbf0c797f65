package control

import (
	"time"

	"banmesh/internal/ban"
)

// An Event is one thing that happened on this node, for GET /v1/history and GET /v1/events.
// Its names keep their meaning, so that a program may store it.
type Event struct {
	// Cursor numbers events in their order. Cursors only grow, and not by one.
	Cursor uint64    `json:"cursor"`
	At     time.Time `json:"at"`
	// Kind is ban, extend, end, watch-hit, refuse, shield, hold, strike, quarantine,
	// withdraw, unban, allow, dispute, peer, config, start, stop or lost.
	Kind   string     `json:"kind"`
	Topic  ban.Topic  `json:"topic,omitempty"`
	Target ban.Target `json:"target,omitzero"`
	// By is who did it: a person, a source of this node, an operator. Peers are the
	// operators on whose word it rests or whom it is about, by their names here.
	By    string    `json:"by,omitempty"`
	Peers []string  `json:"peers,omitempty"`
	Why   string    `json:"why,omitempty"` // for people
	Until time.Time `json:"until,omitzero"`
	Count int       `json:"count,omitempty"`
	// First is when the first offence was, Source the log, Sample its line and Port
	// the client's. They never leave the node.
	First  time.Time `json:"first,omitzero"`
	Source string    `json:"source,omitempty"`
	Sample string    `json:"sample,omitempty"`
	Port   uint16    `json:"port,omitempty"`
}

// EventPage answers GET /v1/history, newest first, and GET /v1/events, oldest
// first behind a cursor.
//
// Both take the parameters target, topic, peer, kind (several times), since (RFC 3339)
// and limit (200, at most 10,000); events takes after, a cursor, and wait, seconds
// of at most 60 in which it waits for the first event.
type EventPage struct {
	Events []Event `json:"events"`
	// Next is the cursor to go on behind.
	Next uint64 `json:"next"`
	More bool   `json:"more"` // there are more than the limit
	// Missed says that events behind the cursor are no longer kept.
	Missed bool `json:"missed,omitempty"`
	// Kept is how many events there are, and Oldest the time of the first one.
	Kept   int       `json:"kept"`
	Oldest time.Time `json:"oldest,omitzero"`
}
