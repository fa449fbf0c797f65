package control

import (
	"time"

	"banmesh/internal/ban"
)

// A Peer is an element of the answer to GET /v1/peers: an operator's claims and
// of which use they were here.
type Peer struct {
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	Feeds    int          `json:"feeds"`
	Claims   int          `json:"claims"`
	// Banning is how many bans in force its claims are part of, Alone how many of
	// these nobody else claims, Corroborated how many of its claims another
	// operator or this node makes too.
	Banning      int `json:"banning"`
	Alone        int `json:"alone"`
	Corroborated int `json:"corroborated"`
	Waiting      int `json:"waiting"`
	// Dropped is how many claims are not even kept, because they are more than
	// its budget has room for.
	Dropped  int `json:"dropped"`
	Disputed int `json:"disputed"`
	// Met is how many offenders here it had claimed before they came, Overruled
	// how many of its claims a person unbanned here.
	Met       int `json:"met"`
	Overruled int `json:"overruled"`
	// Refused counts the packets and requests that bouncers refused by its word
	// since the agent started; only with [lapi] origin = "operator".
	Refused uint64 `json:"refused,omitempty"`
	// RefusedShare estimates those that were reported for several operators'
	// bans together: the share that its bans have of them.
	RefusedShare uint64 `json:"refused_share,omitempty"`
	// Measured is how many claims of addresses it has, weak ones left out, and
	// Guests how many of them are of guests of this node: its false positives.
	Measured int `json:"measured"`
	Guests   int `json:"guests"`
	// Withdrawn counts the claims that it withdrew before they ended, by reason.
	Withdrawn  map[ban.Reason]int `json:"withdrawn,omitempty"`
	Strikes    int                `json:"strikes"` // within a day
	Total      int                `json:"strikes_total"`
	Recent     []Strike           `json:"recent_strikes,omitempty"`
	Quarantine *Quarantine        `json:"quarantine,omitempty"`
	Probation  time.Time          `json:"probation_until,omitzero"`
	// Trouble is the gravest status of its feeds of those by which it is believed
	// less, or not at all: quarantined, stolen, equivocating or contested.
	Trouble string `json:"trouble,omitempty"`
}

// A Strike is an operator's claim of something that must never be banned.
type Strike struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	At     time.Time  `json:"at"`
	Why    string     `json:"why"`
}

// Quarantine is why an operator's claims count for nothing, though it is
// trusted.
type Quarantine struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	// Feed ("topic/operator/node") is the feed that exceeded a limit, if one did.
	Feed string `json:"feed,omitempty"`
}

// A Hold is an element of the answer to GET /v1/hold: claims of a feed that
// wait.
type Hold struct {
	Feed     string       `json:"feed"` // topic/operator/node
	Topic    ban.Topic    `json:"topic"`
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	// Why is one of the Hold words.
	Why string `json:"why"`
	// Since is when the guard began to hold, and Opens when it lets go by itself,
	// if it does.
	Since  time.Time    `json:"since,omitzero"`
	Opens  time.Time    `json:"opens,omitzero"`
	Claims int          `json:"claims"`
	Live   int          `json:"live"`   // claims of the feed that count
	Sample []ban.Target `json:"sample"` // some of those that wait
}

// Reasons of a [Hold].
const (
	HoldGuard    = "changes more than usual"
	HoldBudget   = "over budget"
	HoldRejected = "rejected"
	HoldCapacity = "more than is kept of a peer"
)
