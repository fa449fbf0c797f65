// Package control is the agent's control interface: JSON over HTTP on a unix
// socket. It holds the types on the wire, the server and the client, and
// nothing of the agent's work.
package control

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
)

// MaxBody bounds one request, in bytes: a denylist import of
// about 20,000 wallets in one call; larger ones come in several.
const MaxBody = 4 << 20

// Status answers GET /v1/status.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	PID      int       `json:"pid"`
	Operator string    `json:"operator"` // our operator's identity
	Node     string    `json:"node"`
	Network  string    `json:"network"`
	// Enforcement is "nftables", "ipset" or "hook", "observe" where bans drop
	// nothing, or "off"; Reason is why it is one of these two, in words.
	Enforcement string         `json:"enforcement"`
	Reason      string         `json:"reason,omitempty"`
	Bans        int            `json:"bans"`    // in force
	Watched     int            `json:"watched"` // targets that their first offence here bans
	Waiting     int            `json:"waiting"` // claims of peers that do not count yet
	Topics      []TopicStatus  `json:"topics"`
	Sources     []SourceStatus `json:"sources"`
	// Cut lines were longer than a line may be; Dropped ones could not be read. Both
	// are of all sources, since the last reload.
	Cut     uint64         `json:"cut"`
	Dropped uint64         `json:"dropped"`
	Brokers []BrokerStatus `json:"brokers"`
	// Broker is the address of the embedded broker, or "".
	Broker string `json:"broker,omitempty"`
	// Page is the address of the page for browsers, or "".
	Page string `json:"page,omitempty"`
	// Lists are the public lists of addresses that count here; their use is in the
	// answer to GET /v1/lists alone.
	Lists []PublicList `json:"lists,omitempty"`
	// Compat are the protocols of other programs that this node speaks.
	Compat []Compat `json:"compat,omitempty"`
	// Vallumd are the private brokers of [[vallumd]].
	Vallumd []Vallumd `json:"vallumd,omitempty"`
	// Gate is the wallet gate's own account, without its wallets; null where
	// none answers.
	Gate *GateStatus `json:"gate,omitempty"`
	// Shielded counts the offences of never-ban entries, the latest first.
	Shielded []Shielded `json:"shielded,omitempty"`
	// Notify are the receivers of messages.
	Notify []Notify `json:"notify,omitempty"`
	// Warnings name the faults of the node and the commands that mend them.
	Warnings []Warning `json:"warnings"`
}

// A Warning is something wrong with the node.
type Warning struct {
	Code     string `json:"code"`          // stable, for scripts: docs/warnings.md lists them
	Title    string `json:"title"`         // the kind, in a sentence
	Severity string `json:"severity"`      // one of the Severity words
	Text     string `json:"text"`          // the particulars
	Fix      string `json:"fix,omitempty"` // a command
}

// Severities of a [Warning].
const (
	SeverityHigh = "high" // the node does not do its work, or may do harm
	SeverityLow  = "low"  // it does, and somebody should know
)

// TopicStatus is the state of a topic.
type TopicStatus struct {
	Topic     ban.Topic `json:"topic"`
	Detect    bool      `json:"detect"`
	Simulate  bool      `json:"simulate,omitempty"`
	Subscribe bool      `json:"subscribe"`
	Publish   bool      `json:"publish"`
	Policy    string    `json:"policy,omitempty"` // the ban expression
	Own       int       `json:"own"`              // bans of our own in force
	Bans      int       `json:"bans"`             // bans in force, whoever made them
	Packets   uint64    `json:"packets"`          // dropped (or counted, when observing)
	Bytes     uint64    `json:"bytes"`
	// Observe says that bans are counted and drop nothing; Operators then says
	// whose bans met how much.
	Observe   bool            `json:"observe,omitempty"`
	Operators []OperatorCount `json:"operators,omitempty"`
}

// OperatorCount is the traffic that met the bans of an observed topic which
// rest on one operator's word: believing it would have dropped that much.
type OperatorCount struct {
	Name    string `json:"name"` // "here" for this node
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// SourceStatus is one log that a topic names: a file pattern, a journal match, a
// container, a listener. Its counters outlive a reload.
type SourceStatus struct {
	Name string `json:"name"` // for people
	Kind string `json:"kind"` // "file", "journal", "container", "syslog" or "stdin"
	Log  string `json:"log"`  // as the topic names it
	// Topics are those that read it.
	Topics []ban.Topic `json:"topics"`
	// Found counts the files that are there, -1 where that is no question; Driver is
	// a container's log driver where that writes no file that can be read.
	Found  int    `json:"found"`
	Driver string `json:"driver,omitempty"`
	// Lines that came through it: offences, ignored ones, and those that are
	// nothing to any topic. A line that two logs of a topic give counts in the first.
	Read      uint64 `json:"read"`
	Matched   uint64 `json:"matched"`
	Ignored   uint64 `json:"ignored"`
	Unmatched uint64 `json:"unmatched"`
	// Backlog is the known rest that is unread, in bytes, or entries of a journal.
	Backlog  int64     `json:"backlog"`
	LastLine time.Time `json:"last_line,omitzero"`
	// Error is why it cannot be read, Fix the command that changes it.
	Error string `json:"error,omitempty"`
	Fix   string `json:"fix,omitempty"`
}

// BrokerStatus is one broker that the node uses.
type BrokerStatus struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"`
	Advice    string    `json:"advice,omitempty"`  // the step that a person can take
	Refused   int       `json:"refused,omitempty"` // subscriptions that it refuses; asked again
	Lost      int       `json:"lost,omitempty"`    // messages that it acknowledged and does not keep; sent again
	// Health is "connected", "unreachable", "misbehaving", or "" before the
	// first answer. A misbehaving broker broke the MQTT protocol.
	Health string `json:"health,omitempty"`
	// Refusal is why it keeps none of this node's messages, as it says itself.
	Refusal string `json:"refusal,omitempty"`
	// Unanswered counts messages that it has not acknowledged, the oldest since
	// UnansweredSince. Contended says that it ends the connection again and again
	// soon after it is made, as where another machine uses this node's keys.
	Unanswered      int       `json:"unanswered,omitempty"`
	UnansweredSince time.Time `json:"unanswered_since,omitzero"`
	Contended       bool      `json:"contended,omitempty"`
}

// Ban is one ban in force, in answers to GET /v1/bans.
type Ban struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	Until  time.Time  `json:"until"`
	Origin []string   `json:"origin"` // "here", or names of operators
	Class  ban.Class  `json:"class"`
	Basis  ban.Basis  `json:"basis"`
	Hits   int        `json:"hits"`
	Rule   string     `json:"rule,omitempty"`
	// Cut says, where a ban was asked for, that it lasts less: 90 days are the
	// most.
	Cut bool `json:"cut,omitempty"`
	// Kernel says, where a ban was asked for, why no packet is dropped by it or the
	// kernel does not have it yet; "" where it is in force.
	Kernel string `json:"kernel,omitempty"`
}

// AllowRequest is the body of POST /v1/allow and /v1/allow/remove: no ban
// touches the target, whoever makes it.
type AllowRequest struct {
	Target  ban.Target `json:"target"`
	For     int64      `json:"for,omitempty"` // seconds; 0 means for good
	Comment string     `json:"comment,omitempty"`
	// Yes does without the question that more than a [Handful] begins.
	Yes bool `json:"yes,omitempty"`
}

// PeerRequest is the body of POST /v1/hold/approve, /v1/hold/reject,
// /v1/peers/undo and /v1/peers/release.
type PeerRequest struct {
	Peer  string    `json:"peer"` // a name, or an identity
	Topic ban.Topic `json:"topic,omitempty"`
	Why   string    `json:"why,omitempty"`
	For   int64     `json:"for,omitempty"` // how long an approval lets in later claims, in seconds
	// Yes does without the question that more than a [Handful] begins, of undo.
	Yes bool `json:"yes,omitempty"`
}

// CountAnswer says how many claims or bans were touched.
type CountAnswer struct {
	Count  int    `json:"count"`
	Kernel string `json:"kernel,omitempty"` // why the kernel does not follow yet, "" where it does
}

// AllowRemoveAnswer lists the bans of a target that nothing shields any longer.
type AllowRemoveAnswer struct {
	Banned []Ban  `json:"banned,omitempty"`
	Kernel string `json:"kernel,omitempty"` // why the kernel does not have them yet
}

// ErrorAnswer is the body of every answer that is not 2xx.
type ErrorAnswer struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	// Code is one of the Code constants.
	Code string `json:"code"`
}

// Codes of an [ErrorAnswer].
const (
	CodeBad      = "bad-request"
	CodeRefused  = "refused" // never-ban, cap or policy forbids it
	CodeRestart  = "restart" // it takes effect when the agent is restarted, and not before
	CodeMissing  = "not-found"
	CodeAsk      = "ask" // it changes much: send it again with Yes
	CodeInternal = "internal"
)

// RefusedError is a request that the agent understood and will not do.
type RefusedError struct {
	Code, Text, Hint string
}

func (e *RefusedError) Error() string { return e.Text }

// Refuse makes a [RefusedError].
func Refuse(code, hint, format string, args ...any) error {
	return &RefusedError{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint}
}
