// Package export answers over HTTP which targets are banned: one question,
// plain lists with ETags, and a stream of a snapshot and the changes after it.
// Web servers, firewalls, scripts and the client package read it.
package export

import (
	"context"
	"errors"
	"iter"
	"time"

	"banmesh/internal/ban"
)

// Bans is the source of all answers: the bans in force, all of them, under
// a serial number that grows with every change.
type Bans interface {
	// Check gives every ban in force that covers the whole target: the target
	// itself and, for an IP target, each prefix around it. It answers from
	// memory.
	Check(ban.Target) []Match
	// Snapshot gives the serial of now and the bans in force. A change while
	// the entries are read may or may not be among them; Next repeats it.
	Snapshot() (serial uint64, entries iter.Seq[Entry])
	// Next waits until something changed after serial and gives the changes
	// that follow it, the oldest first. It fails with [ErrBehind] when they are
	// no longer kept, and with the context's error.
	Next(ctx context.Context, serial uint64) (Batch, error)
}

// Offences takes reports of programs on this machine.
type Offences interface {
	// Report takes one offence, or says why not: an [ErrUnwelcome], wrapped.
	Report(context.Context, Offence) error
}

// ErrBehind says that the reader asked for changes that are no longer kept:
// it needs a new snapshot.
var ErrBehind = errors.New("the changes after that serial are no longer kept")

// ErrUnwelcome says that the agent takes no such report.
var ErrUnwelcome = errors.New("not taken")

// A Match is one ban in force that covers the question.
type Match = Entry

// An Entry is one ban in force: a target in a topic.
type Entry struct {
	Target ban.Target
	Topic  ban.Topic
	Until  time.Time
	Class  ban.Class
	// Here says that this node made the ban itself; otherwise it comes of
	// operators that its policy trusts.
	Here bool
}

// A Key names an [Entry].
type Key struct {
	Target ban.Target
	Topic  ban.Topic
}

// A Batch has the changes up to a serial. A target in a topic appears once in
// Bans or Lifted.
type Batch struct {
	Serial uint64
	Bans   []Entry // new, or with another end or class
	Lifted []Key
}

// An Offence is one observation of a program that it reports instead of
// writing a log line. It is evidence: the agent decides.
type Offence struct {
	Topic  ban.Topic
	Target ban.Target
	Class  ban.Class
	At     time.Time
}
