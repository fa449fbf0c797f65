package control

import (
	"time"

	"banmesh/internal/ban"
)

// Compat is a protocol of another program that this node speaks, in an answer of
// GET /v1/status.
type Compat struct {
	Protocol string         `json:"protocol"` // "lapi", "fail2ban", "capi", "lists"
	Listen   string         `json:"listen"`
	Clients  []CompatClient `json:"clients"`
	// Refused tells of wrong keys and passwords, nil for none.
	Refused *CompatRefused `json:"refused,omitempty"`
}

// CompatRefused counts wrong credentials since the agent started.
type CompatRefused struct {
	Count uint64    `json:"count"`
	From  string    `json:"from,omitempty"` // the last one's address, "" on a unix socket
	At    time.Time `json:"at"`             // of the last one
}

// Vallumd is a private broker whose vallumds are told bans, or are believed.
type Vallumd struct {
	Name      string      `json:"name"` // "vallumd:home"
	URL       string      `json:"url"`
	Connected bool        `json:"connected"`
	Error     string      `json:"error,omitempty"` // why it is not connected
	Publish   []ban.Topic `json:"publish,omitempty"`
	Accept    []ban.Topic `json:"accept,omitempty"`
	// Told are addresses that the sets have from this node, LeftOut bans in force
	// that no set can hold.
	Told    int `json:"told"`
	LeftOut int `json:"left_out"`
	// Received are messages of others that were taken since the start, Ignored those that
	// say nothing or that nobody asked for, Full addresses beyond the budget.
	Received uint64    `json:"received"`
	Ignored  uint64    `json:"ignored"`
	Full     int       `json:"full"`
	Last     time.Time `json:"last,omitzero"` // when the last message was taken
}

// CompatClient is a program that asked since the agent started.
type CompatClient struct {
	Name    string      `json:"name"`
	From    string      `json:"from,omitempty"` // its address, "" on a unix socket
	Kind    string      `json:"kind,omitempty"` // as it says of itself
	Version string      `json:"version,omitempty"`
	Topics  []ban.Topic `json:"topics,omitempty"` // empty means all
	Last    time.Time   `json:"last,omitzero"`    // its last answered question
	Told    int         `json:"told"`             // bans in the last full answer
	Asked   uint64      `json:"asked,omitempty"`  // commands, of a client of fail2ban's
	// Signals are alerts of a CrowdSec that were taken as bans, Ignored those that
	// were left out.
	Signals uint64 `json:"signals,omitempty"`
	Ignored uint64 `json:"ignored,omitempty"`
	// Requests and Packets it reported as refused, all origins together.
	Requests uint64 `json:"requests"`
	Packets  uint64 `json:"packets"`
	// Warning names a behaviour of this program that may surprise its operator.
	Warning string `json:"warning,omitempty"`
}

// Bouncer is an element of the answer to GET /v1/bouncers: a program that may
// ask for bans with a key of its own.
type Bouncer struct {
	Name    string         `json:"name"`
	Topics  []ban.Topic    `json:"topics,omitempty"` // empty means all
	Created time.Time      `json:"created"`
	Clients []CompatClient `json:"clients"`
}

// BouncerRequest is the body of POST /v1/bouncers and /v1/bouncers/remove.
type BouncerRequest struct {
	Name   string      `json:"name"`
	Topics []ban.Topic `json:"topics,omitempty"`
}

// BouncerKey answers POST /v1/bouncers: the key is told this once.
type BouncerKey struct {
	Key    string `json:"key"`
	Listen string `json:"listen"` // where it is to be used, "" while [lapi] is off
}

// CrowdSecRequest is the body of POST /v1/crowdsec/join and leave: the
// credentials of a CrowdSec on this machine. leave needs no password.
type CrowdSecRequest struct {
	Login    string `json:"login"`
	Password string `json:"password,omitempty"`
}

// CrowdSecAnswer answers POST /v1/crowdsec/join: where it is to ask.
type CrowdSecAnswer struct {
	URL string `json:"url"`
}

// Referenced answers GET /v1/reference?reference=...: the ban in force of which
// a visitor was told the reference.
type Referenced struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
}
