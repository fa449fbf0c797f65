package control

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Guest is an element of the answer to GET /v1/guests: an address, or an IPv6
// /64, that lately logged in or did real work here. No peer and no weak evidence
// bans it.
type Guest struct {
	Prefix netip.Prefix `json:"prefix"`
	Topic  ban.Topic    `json:"topic"` // of the newest success
	// Worked says that it moved bytes and that no login is known.
	Worked bool      `json:"worked,omitempty"`
	Last   time.Time `json:"last"` // the newest success
	Until  time.Time `json:"until"`
}

// GuestRequest is the body of POST /v1/guests/remove: an address or a prefix is
// no guest any more, until its next success.
type GuestRequest struct {
	Target ban.Target `json:"target"`
}
