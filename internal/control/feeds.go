package control

import (
	"time"

	"banmesh/internal/ban"
)

// A Feed is an element of the answer to GET /v1/feeds: a feed that this node
// writes or reads.
type Feed struct {
	Topic       ban.Topic `json:"topic"`
	Operator    string    `json:"operator"`
	Node        string    `json:"node"`
	Name        string    `json:"name,omitempty"` // the name of the operator here
	Own         bool      `json:"own"`
	Status      string    `json:"status"` // one of the words that `agent feeds --help` lists
	Epoch       uint64    `json:"epoch"`
	Batch       uint64    `json:"batch"`  // the newest one applied, or written
	Newest      uint64    `json:"newest"` // the newest one that is known of
	Claims      int       `json:"claims"`
	Bytes       int       `json:"bytes"`           // of the pieces and the log
	Issued      time.Time `json:"issued,omitzero"` // of the newest head: the author's own time, as of which it is synced
	FreshUntil  time.Time `json:"fresh_until,omitzero"`
	Missing     int       `json:"missing"` // pieces that are asked for
	Replays     int       `json:"replays"`
	Mismatches  int       `json:"mismatches"` // states that were not the author's
	Disputes    int       `json:"disputes"`
	Restarted   time.Time `json:"restarted,omitzero"` // own: when this process had to begin the feed again
	Fingerprint string    `json:"fingerprint"`
}

// Documents answer GET /v1/documents: the trust lists that the rules follow,
// and the topic definitions of the operators that the configuration names, as
// they are held here.
type Documents struct {
	Trust       []TrustList  `json:"trust"`
	Definitions []Definition `json:"definitions"`
	Lists       []WalletList `json:"lists"`
}

// A TrustList is an operator's published list of whom it trusts.
type TrustList struct {
	Operator ban.Operator `json:"operator"`
	Number   uint64       `json:"number"`
	Issued   time.Time    `json:"issued"`
	Trusted  []Trusted    `json:"trusted"`
}

// Trusted is an entry of a [TrustList].
type Trusted struct {
	Operator ban.Operator `json:"operator"`
	Weight   uint8        `json:"weight"` // 0 to 100
	Follows  bool         `json:"follows,omitempty"`
	Name     string       `json:"name"` // the author's name of it; foreign text
}

// A Definition is a topic definition that an operator publishes.
type Definition struct {
	Operator ban.Operator `json:"operator"`
	Topic    ban.Topic    `json:"topic"`
	Number   uint64       `json:"number"`
	Issued   time.Time    `json:"issued"`
	Text     string       `json:"text"`
}

// PeerCard answers GET /v1/card?peer=NAME: an operator's card as it is held
// here.
type PeerCard struct {
	Name string `json:"name"`
	Text string `json:"text"` // as `agent key card --text` prints it
}
