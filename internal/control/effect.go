package control

import (
	"time"

	"banmesh/internal/ban"
)

// ReloadRequest is the body of POST /v1/reload. Where the configuration ends
// more than a [Handful] of bans the answer is [CodeAsk], and nothing changes,
// unless Yes is set.
type ReloadRequest struct {
	Yes bool `json:"yes,omitempty"`
	// Dry answers the effect and changes nothing.
	Dry bool `json:"dry,omitempty"`
}

// RulesRequest is the body of POST /v1/effect: the effect that other rules of a
// topic would have. Nothing changes.
type RulesRequest struct {
	Topic ban.Topic `json:"topic"`
	Rules Rules     `json:"rules"` // Accept is taken as true
}

// An Effect is the difference that a change of the rules makes to the bans of
// now.
type Effect struct {
	// Begin and End are how many bans begin and end; Watched and Unwatched how
	// many targets begin and cease to be watched or suspects.
	Begin     int `json:"begin"`
	End       int `json:"end"`
	Watched   int `json:"watched"`
	Unwatched int `json:"unwatched"`
	// Begins and Ends are some of the bans that begin and end.
	Begins []EffectBan `json:"begins,omitempty"`
	Ends   []EffectBan `json:"ends,omitempty"`
	// Rules are those that change, by topic.
	Rules []RuleChange `json:"rules,omitempty"`
	// Kernel says, of a configuration that was taken over, why the kernel does not
	// follow yet; "" where it does.
	Kernel string `json:"kernel,omitempty"`
}

// EffectBan is one target of an [Effect].
type EffectBan struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	// Sentence says why it is, or no longer is, banned.
	Sentence string    `json:"sentence"`
	Rule     string    `json:"rule,omitempty"`
	Until    time.Time `json:"until,omitzero"` // the end that the ban has, or had
}

// A RuleChange is a topic's rules before and after a change.
type RuleChange struct {
	Topic  ban.Topic `json:"topic"`
	Before Rules     `json:"before"`
	After  Rules     `json:"after"`
}

// Rules are the expressions of a topic, the recommended ones where a person
// wrote none.
type Rules struct {
	Accept  bool   `json:"accept"` // claims of others count
	Ban     string `json:"ban,omitempty"`
	Watch   string `json:"watch,omitempty"`
	Suspect string `json:"suspect,omitempty"`
	Require string `json:"require,omitempty"`
}
