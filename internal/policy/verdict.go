package policy

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
)

// An Action is a node's treatment of a target.
type Action uint8

// The actions, weakest first.
const (
	Ignore  Action = iota // nothing
	Suspect               // its second offence here bans it
	Watch                 // its first offence here bans it
	Ban                   // it is banned
)

var actionNames = [...]string{"ignore", "suspect", "watch", "ban"}

// Offences is how many offences ban a target here, of the usual number.
func (a Action) Offences(usual int) int {
	switch a {
	case Suspect:
		return min(2, usual)
	case Watch, Ban:
		return min(1, usual)
	}
	return usual
}

func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action-%d", uint8(a))
}

// MarshalText implements [encoding.TextMarshaler].
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Action) UnmarshalText(b []byte) error {
	for i, name := range actionNames {
		if string(b) == name {
			*a = Action(i)
			return nil
		}
	}
	return fmt.Errorf("unknown action %q", clip(string(b)))
}

// A Reason explains a verdict, or why a claim does not count.
// The set is closed.
type Reason uint8

// The reasons.
const (
	ReasonNone        Reason = iota // nothing is claimed
	ReasonLocal                     // this node banned it
	ReasonQuorum                    // the topic's ban rule is met
	ReasonWatched                   // the topic's watch rule is met
	ReasonProbation                 // it would be banned were the operators not new
	ReasonHeld                      // it would be banned, but claims wait for approval or for room in a budget
	ReasonDisputed                  // enough operators dispute it
	ReasonCaution                   // many people share the address, so it is watched only
	ReasonNeverBan                  // it overlaps an entry of the never-ban list
	ReasonExempt                    // it was unbanned or allowed here
	ReasonNoRule                    // the topic has no rules here
	ReasonNoQuorum                  // too few of the operators that count
	ReasonUnknown                   // the operator is in none of the topic's rules
	ReasonQuarantine                // the operator is quarantined
	ReasonPrefix                    // the prefix is wider than the topic accepts
	ReasonEvidence                  // weaker evidence than the topic requires
	ReasonExpired                   // the claim has ended
	ReasonAged                      // the claim is older than the topic's ttl
	ReasonWeak                      // weak evidence bans nobody
	ReasonSecond                    // fewer hits than required: a vote, but never the first
	ReasonSuspect                   // the topic's suspect rule is met
	ReasonOwnOperator               // another node of this operator banned it
	ReasonGuest                     // it lately logged in or did real work here
	ReasonMistake                   // its author withdrew it as a mistake
	ReasonTold                      // the ban here has ended, and peers are told of its evidence
	ReasonImported                  // an imported list or network names it
	ReasonNoticed                   // the rule of the import that says so bans nobody
	ReasonRejected                  // a person here rejected the claim
)

var reasonNames = [...]string{
	"none", "local", "quorum", "watched", "probation", "held", "disputed", "caution", "never-ban", "exempt",
	"no-rule", "no-quorum", "unknown-operator", "quarantine", "prefix", "evidence", "expired",
	"aged", "weak", "second", "suspect", "own-operator", "guest", "mistake", "told", "imported", "noticed", "rejected",
}

var reasonTexts = [...]string{
	"nothing is claimed",
	"this node banned it",
	"the topic's ban rule is met",
	"the topic's watch rule is met",
	"it would be banned, but an operator is new and on probation",
	"it would be banned, but claims wait for approval or for room in a budget, so it is watched",
	"enough operators dispute it",
	"many people share the address, so it is only watched",
	"it overlaps an entry of the never-ban list",
	"it was unbanned or allowed here",
	"the topic has no rules here",
	"too few of the operators that count say so",
	"the operator is in none of the topic's rules",
	"the operator is quarantined",
	"the prefix is wider than the topic accepts",
	"weaker evidence than the topic requires",
	"the claim has ended",
	"the claim is older than this topic's ttl",
	"weak evidence, which bans nobody",
	"fewer hits than the topic requires, such as a ban of a watched address: a vote, but never the first",
	"the topic's suspect rule is met",
	"another node of this operator banned it",
	"it lately logged in or did real work here, so no peer bans it",
	"its author withdrew it as a mistake",
	"the ban here has ended; peers are told of its evidence while that counts",
	"an imported list or network names it",
	"its list's or network's rule bans nobody: an offence here does",
	"a person here rejected it, so it counts for nothing",
}

// String gives the reason's name: "never-ban".
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// Sentence says the reason to a person.
func (r Reason) Sentence() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return r.String()
}

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Reason) UnmarshalText(b []byte) error {
	for i, name := range reasonNames {
		if string(b) == name {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", clip(string(b)))
}

// A Verdict is policy's answer about a target in a topic.
type Verdict struct {
	Action Action
	// Until is when the action lapses by itself if no claim changes: for a ban,
	// the exact end of the vote that keeps the rule met. Zero for Ignore.
	Until time.Time
	Why   Reason
	// Rule is the part of the topic's rule that is met ("2 of core"), or the
	// target's shield.
	Rule string
	// By are the operators whose claims meet the rule, in the order in which
	// they were counted: longest first. Empty where only this node's own claim does.
	By []ban.Operator
}

// A Vote is one live claim as policy sees it. Its target is the judged one or a
// wider prefix around it.
type Vote struct {
	ban.Claim
	Operator ban.Operator
	// Own says that it is this node's own ban.
	Own bool
	// Since is when the claim arrived here.
	Since time.Time
	// Held says that the claim waits for approval or room in a budget;
	// Rejected that a person here said that it counts for nothing, Quarantined
	// that all of its operator's claims do.
	Held, Rejected, Quarantined bool
}

// A Dispute is an operator's signed statement that a target should not be
// banned.
type Dispute struct {
	Operator ban.Operator
	End      time.Time
}

// Protection finds the shield of a target: the never-ban set, exemptions, the
// caution list. Overlap counts in both directions.
type Protection interface {
	Protects(ban.Target) (why string, ok bool)
}

// A Question is everything that a verdict depends on.
type Question struct {
	Topic    ban.Topic
	Target   ban.Target
	Votes    []Vote
	Disputes []Dispute
	// NeverBan shields from every claim, this node's own included; so does
	// Allowed, the targets that a person allowed. NeverPeers and Exempt (those a person
	// unbanned) shield from the claims of others. Caution marks addresses that
	// many people share, Guests those that lately logged in or did real work
	// here, which no peer bans. Each may be nil.
	NeverBan, NeverPeers     Protection
	Allowed, Exempt, Caution Protection
	Guests                   Protection
	Now                      time.Time
	// Brief leaves out who met the rule, for a caller that only acts.
	Brief bool
}
