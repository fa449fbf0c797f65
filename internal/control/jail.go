package control

import "banmesh/internal/ban"

// JailStatus answers GET /v1/jail?topic=NAME: the figures of fail2ban-client
// about a jail, of a topic.
type JailStatus struct {
	Topic ban.Topic `json:"topic"`
	// Detect says that the topic's log is read, Simulate that nobody is banned
	// for its lines.
	Detect   bool `json:"detect"`
	Simulate bool `json:"simulate"`
	// CurrentlyFailed targets have offences and no ban yet; TotalFailed counts
	// offences, Ignored those of addresses on an ignore list. Evicted targets
	// were let go of because memory is bounded.
	CurrentlyFailed int    `json:"currently_failed"`
	TotalFailed     uint64 `json:"total_failed"`
	Ignored         uint64 `json:"ignored"`
	Evicted         uint64 `json:"evicted"`
	// Files, Journal and Other are the logs that are read for the topic.
	Files   []string `json:"files"`
	Journal []string `json:"journal_matches"`
	Other   []string `json:"other_sources"`
	// CurrentlyBanned is how many bans are in force, Own how many of them this
	// node made; TotalBanned counts the decisions of this node. With Simulate
	// those are bans that were not made.
	CurrentlyBanned int          `json:"currently_banned"`
	Own             int          `json:"own"`
	TotalBanned     uint64       `json:"total_banned"`
	Banned          []ban.Target `json:"banned"`
	// Timeouts counts how often an expression took too long.
	Timeouts uint64 `json:"timeouts"`
}
