package control

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// An Exemption is an element of the answer to GET /v1/allow. It shields a
// target, and everything that overlaps it.
type Exemption struct {
	Target ban.Target `json:"target"`
	// Topic is the only topic that an unban is about; "" is all of them.
	Topic ban.Topic `json:"topic,omitempty"`
	// Allow shields from every claim, this node's own detection included. An
	// unban (Allow false) shields from the claims of others: a new offence here
	// still bans.
	Allow bool `json:"allow"`
	// Dispute says that others are told, as a signed dispute.
	Dispute bool `json:"dispute,omitempty"`
	// Until is the end; the zero time is never.
	Until   time.Time `json:"until,omitzero"`
	Since   time.Time `json:"since"`
	Comment string    `json:"comment,omitempty"`
}

// A NeverBan is an element of the answer to GET /v1/never-ban: one protected
// prefix.
type NeverBan struct {
	Prefix netip.Prefix `json:"prefix"`
	// Source says where the entry comes from: "gateway", "administrator",
	// "manual", "pack", [SourceShared] and others.
	Source string `json:"source"`
	// Reason is for people: "default gateway on eth0".
	Reason string `json:"reason"`
	// Until is when the entry ends; zero is never.
	Until time.Time `json:"until,omitzero"`
}
