package control

import (
	"time"

	"banmesh/internal/ban"
)

// BanRequest is the body of POST /v1/bans.
type BanRequest struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	// For is how long, in seconds; 0 means the topic's ban time.
	For   int64      `json:"for,omitempty"`
	Class *ban.Class `json:"class,omitempty"` // manual when left out
	Hits  int        `json:"hits,omitempty"`  // offences seen, at most [ban.MaxHits]
	// By is the source of the claim: "" is a person, else "fail2ban", "crowdsec",
	// "list:NAME" or a program's name. Only its source can withdraw it alone.
	By string `json:"by,omitempty"`
}

// MaxBulk bounds the entries of one request for many targets, so that one fits
// into [MaxBody] and the ledger is not held for long. Longer lists come in
// several requests.
const MaxBulk = 20_000

// BanAllRequest is the body of POST /v1/bans/all: up to [MaxBulk] bans in one
// durable step.
type BanAllRequest struct {
	Bans []BanRequest `json:"bans"`
}

// BanAllAnswer says which of the bans of a request are in force now.
type BanAllAnswer struct {
	Banned  int       `json:"banned"`
	Cut     int       `json:"cut,omitempty"` // for how many more than 90 days were asked, the longest that is kept
	Refused []Refusal `json:"refused,omitempty"`
	Kernel  string    `json:"kernel,omitempty"` // why they are not in the kernel yet, "" where they are
}

// A Refusal is an entry of a request that was not done. The others were.
type Refusal struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic,omitempty"`
	ErrorAnswer
}

// WithdrawRequest is the body of POST /v1/withdraw: this node no longer says
// that targets are banned, and forbids nobody else to. In one durable step.
type WithdrawRequest struct {
	Targets []ban.Target `json:"targets,omitempty"` // at most [MaxBulk]
	All     bool         `json:"all,omitempty"`     // instead of Targets
	Topic   ban.Topic    `json:"topic,omitempty"`   // "" means every topic
	By      string       `json:"by,omitempty"`      // of this source alone; "" means every source
	Reason  ban.Reason   `json:"reason,omitempty"`  // told to readers; "ended" when left out
	// Yes does without the question that more than a [Handful] begins.
	Yes bool `json:"yes,omitempty"`
}

// WithdrawAnswer says which own claims were withdrawn.
type WithdrawAnswer struct {
	Withdrawn []OwnClaim `json:"withdrawn"`
	Kernel    string     `json:"kernel,omitempty"` // why the kernel does not follow yet, "" where it does
}

// OwnClaim is a claim that this node made.
type OwnClaim struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	By     string     `json:"by"` // its source
	End    time.Time  `json:"end"`
	Class  ban.Class  `json:"class"`
	Basis  ban.Basis  `json:"basis"`
	// Banned says that the target is banned all the same, by another source or by
	// peers.
	Banned bool `json:"banned"`
}

// UnbanRequest is the body of POST /v1/unban: the targets' own bans are
// withdrawn and they are exempt from every other for a time. Up to [MaxBulk]
// targets, in one durable step.
type UnbanRequest struct {
	Target  ban.Target   `json:"target,omitzero"`
	Targets []ban.Target `json:"targets,omitempty"` // with Target or instead of it
	All     bool         `json:"all,omitempty"`     // everything that is banned, instead of targets
	Topic   ban.Topic    `json:"topic,omitempty"`   // "" means every topic
	For     int64        `json:"for,omitempty"`     // seconds; 0 means 7 days
	// Dispute tells others, in the topics that this node publishes.
	Dispute bool   `json:"dispute,omitempty"`
	Comment string `json:"comment,omitempty"`
	// Yes does without the question that more than a [Handful] begins.
	Yes bool `json:"yes,omitempty"`
}

// Handful is how many bans a request may lift beyond the targets that it names
// before it is answered with [CodeAsk].
const Handful = 5

// UnbanAnswer lists the bans that an unban lifted.
type UnbanAnswer struct {
	Lifted []Ban     `json:"lifted"`
	Exempt time.Time `json:"exempt_until"`
	// Left are bans in the kernel that this agent does not keep, and so cannot
	// lift.
	Left []LeftBan `json:"left,omitempty"`
	// Kernel says why the kernel does not follow yet, "" where it does.
	Kernel string `json:"kernel,omitempty"`
}

// A LeftBan is a target whose packets the kernel drops though this agent does
// not enforce there.
type LeftBan struct {
	Target ban.Target `json:"target"`
	Where  string     `json:"where"` // for people
	Fix    string     `json:"fix"`   // the command that ends it
}
