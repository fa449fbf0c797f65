// Package notify tells people of a node's events in messages: by e-mail, signed
// webhooks, ntfy, Gotify, Matrix, Telegram, Slack, Discord and MQTT.
//
// The node's history is the queue. A [Notifier] reads it behind a cursor, keeps
// bounded notices for each receiver and saves both in one file: after a kill no
// event that the history keeps is left out, and at most the message that was
// under way is sent twice. Nothing here is waited for by detection or by the
// firewall: a receiver that hangs delays its own messages alone.
//
// A message names targets, topics, operators by their names here, and times. Log
// lines, file names and texts that may hold a user's or a host's name are in it
// only where the receiver's entry asks for details.
package notify

import (
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A Kind is the sort of thing of which a message tells.
type Kind string

// The kinds.
const (
	Ban        Kind = "ban"        // a ban began that rests on peers
	Hold       Kind = "hold"       // claims of a peer wait for a person
	Quarantine Kind = "quarantine" // nothing of an operator counts any longer
	Mistake    Kind = "mistake"    // a peer calls a ban of this node a mistake
	Ending     Kind = "ending"     // a certificate, a pack or denials of wallets end soon
	Silent     Kind = "silent"     // a log cannot be read, or has no lines
	Unbitten   Kind = "unbitten"   // log lines go on after a ban
	Fault      Kind = "fault"      // the node does not do its work, and other grave warnings
	Receipt    Kind = "receipt"    // once a week: of which use the peers were
	Test       Kind = "test"       // a person asked for it
)

// kinds are those that an entry chooses among.
var kinds = []Kind{Ban, Hold, Quarantine, Mistake, Ending, Silent, Unbitten, Fault, Receipt}

// Kinds lists every kind that an entry can choose.
func Kinds() []Kind { return slices.Clone(kinds) }

// DefaultKinds are those of an entry that chooses none: all but single bans,
// which are many.
func DefaultKinds() []Kind { return slices.Clone(kinds[1:]) }

// ParseKind reads a kind that an entry can choose.
func ParseKind(s string) (Kind, bool) { k := Kind(s); return k, slices.Contains(kinds, k) }

// A Notice is one thing of which a receiver is to be told.
type Notice struct {
	Kind   Kind       `json:"kind"`
	At     time.Time  `json:"at"`
	Topic  ban.Topic  `json:"topic,omitempty"`
	Target ban.Target `json:"target,omitzero"`
	Peers  []string   `json:"peers,omitempty"`
	Until  time.Time  `json:"until,omitzero"`
	Count  int        `json:"count,omitempty"`
	// Text is a sentence, or for a receipt several lines; Mend is a command.
	Text string `json:"text"`
	Mend string `json:"mend,omitempty"`
	// Detail may hold a log line, a file's name or a host's: it is for entries that
	// ask for details.
	Detail string `json:"detail,omitempty"`
	// Grave says, of a warning, that the node does not do its work or may do harm.
	Grave bool `json:"grave,omitempty"`
	// Over says that the fault of before has ended.
	Over bool `json:"over,omitempty"`
}

// Limits of a notice's texts, in bytes, and of its peers.
const (
	maxText   = 400
	maxLetter = 4000 // of a receipt
	maxPeers  = 16
)

// bound makes a notice fit to be kept and shown: its texts may come from peers.
func (n *Notice) bound() {
	most := maxText
	if n.Kind == Receipt {
		most = maxLetter
	}
	n.Text, n.Mend, n.Detail = clean(n.Text, most), clean(n.Mend, maxText), clean(n.Detail, maxText)
	peers := n.Peers[:min(len(n.Peers), maxPeers)]
	n.Peers = make([]string, 0, len(peers))
	for _, p := range peers {
		n.Peers = append(n.Peers, clean(p, 64))
	}
}
