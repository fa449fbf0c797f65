// Package history keeps the events of a node on its disk: bans and how they
// ended, decisions of a person, peers' holds and strikes, changes of the
// configuration. It is for people and for programs that follow along; nothing
// of it leaves the node by itself.
//
// A store is a directory of segments, files that are only appended to, with a
// small index of fixed-size entries beside each. It is bounded in age and in
// bytes, the oldest segment makes room. A kill at any time costs at most the
// record that was being written.
package history

import (
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"banmesh/internal/ban"
)

// A Cursor numbers the events of a store in their order: a reader that
// remembers the last one that it has seen goes on behind it. Cursors only grow, also
// where a store is removed and begun anew. They have at most 53 bits, so
// that every JSON reader holds them exactly.
type Cursor uint64

// A Kind is the sort of an event. The set is closed; see [Kinds].
type Kind string

// The kinds.
const (
	Ban        Kind = "ban"        // a ban began: it is in the kernel, or in the lists where no kernel enforces
	Extend     Kind = "extend"     // a ban in force has another end
	End        Kind = "end"        // a ban ended; why says how
	WatchHit   Kind = "watch-hit"  // an offender of whom peers warned was banned sooner
	Refuse     Kind = "refuse"     // an offender was found and not banned
	Shield     Kind = "shield"     // offences of a never-ban entry
	Hold       Kind = "hold"       // claims of a peer wait, or a person decided on them
	Strike     Kind = "strike"     // a peer claims a never-ban target
	Quarantine Kind = "quarantine" // nothing of a peer counts, or again
	Withdraw   Kind = "withdraw"   // a claim was withdrawn
	Unban      Kind = "unban"      // a person lifted bans
	Allow      Kind = "allow"      // a person made or ended an exemption
	Dispute    Kind = "dispute"    // somebody says that a target should not be banned
	Peer       Kind = "peer"       // trust in an operator began, ended or changed
	Config     Kind = "config"     // a configuration was put in force, or refused
	Start      Kind = "start"      // the agent began
	Stop       Kind = "stop"       // the agent ended in order
	Lost       Kind = "lost"       // events that were not kept
)

// Kinds lists every kind.
var kinds = []Kind{Ban, Extend, End, WatchHit, Refuse, Shield, Hold, Strike, Quarantine, Withdraw, Unban, Allow, Dispute, Peer, Config, Start, Stop, Lost}

// Kinds lists every kind there is.
func Kinds() []Kind { return slices.Clone(kinds) }

// ParseKind reads a kind.
func ParseKind(s string) (Kind, bool) { k := Kind(s); return k, slices.Contains(kinds, k) }

// An Event is one thing that happened.
type Event struct {
	Cursor Cursor     // given by [Store.Append]
	At     time.Time  // when it happened, to the second
	Kind   Kind       // never ""
	Topic  ban.Topic  // "" where it is about none
	Target ban.Target // zero where it is about none
	// By is who did it: a person, a source of this node, an operator's name.
	By string
	// Peers are the operators that it rests on or is about, by their names here.
	Peers []string
	Why   string    // a sentence
	Until time.Time // the end of a ban or an exemption; zero for none
	Count int       // how many of the thing, where it is not one
	// First is when the first offence was, Source the log, Sample its line and Port
	// the client's port. They are this node's own evidence and never published.
	First  time.Time
	Source string
	Sample string
	Port   uint16
}

// Limits of an event's texts, in bytes, and of its peers.
const (
	maxText  = 300
	maxLine  = 500
	maxPeers = 16
)

// bound cuts texts that are longer than a record holds.
func (e *Event) bound() {
	e.By, e.Why, e.Source, e.Sample = cut(e.By, maxText), cut(e.Why, maxText), cut(e.Source, maxText), cut(e.Sample, maxLine)
	if len(e.Peers) > maxPeers {
		e.Peers = e.Peers[:maxPeers]
	}
	for i, p := range e.Peers {
		if len(p) > maxText {
			e.Peers = slices.Clone(e.Peers)
			e.Peers[i] = cut(p, maxText)
		}
	}
	e.At, e.Until, e.First = whole(e.At), whole(e.Until), whole(e.First)
	e.Count = max(e.Count, 0)
}

// cut shortens a text at a character's begin, and makes it valid UTF-8.
func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// whole gives a time to the second, in UTC.
func whole(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0).UTC()
}

// overlaps says whether two targets have an address or a wallet in common.
func overlaps(a, b ban.Target) bool {
	p, ip := a.Prefix()
	q, ip2 := b.Prefix()
	if ip && ip2 {
		return p.Overlaps(q)
	}
	return a == b
}

// A Query selects events. The zero Query selects all of them.
type Query struct {
	Target ban.Target // events of targets that overlap it; zero: all
	Topic  ban.Topic  // "": all
	Peer   string     // an operator's name; "": all
	Kinds  []Kind     // nil: all
	Since  time.Time  // zero: from the first one
	// After selects the events behind a cursor, oldest first. Without it, the
	// newest are given, newest first.
	After  Cursor
	Follow bool // oldest first also without After
	Limit  int  // at most so many, 0: [DefaultLimit]
}

// Limits of an answer, in events.
const (
	DefaultLimit = 200
	MaxLimit     = 10_000
)

// A Page answers a [Query].
type Page struct {
	Events []Event
	// Next is the cursor to go on behind, which covers events that the query does
	// not select.
	Next Cursor
	More bool // there are more events than the limit
	// Missed says that events behind the query's cursor are gone: the store
	// removed them before the reader came.
	Missed bool
}

// matches says whether a query selects an event, its cursor aside.
func (q *Query) matches(e *Event) bool {
	return (q.Target.IsZero() || overlaps(q.Target, e.Target)) &&
		(q.Topic == "" || q.Topic == e.Topic) &&
		(q.Peer == "" || slices.Contains(e.Peers, q.Peer)) &&
		(q.Kinds == nil || slices.Contains(q.Kinds, e.Kind)) &&
		!e.At.Before(whole(q.Since))
}

// prefixOf gives a target's prefix, the zero one for a wallet and for none.
func prefixOf(t ban.Target) netip.Prefix {
	p, _ := t.Prefix()
	return p
}
