package federation

import (
	"errors"
	"maps"

	"banmesh/internal/wire"
)

// Counts are totals since the session was made.
type Counts struct {
	Received    uint64            `json:"received"`     // messages that brokers delivered
	Refused     map[string]uint64 `json:"refused"`      // by reason, a closed set of words
	Published   uint64            `json:"published"`    // messages handed to brokers, by broker
	Applied     uint64            `json:"applied"`      // changes handed on
	StoreErrors uint64            `json:"store_errors"` // transactions that failed
}

// Reasons for which messages are refused.
const (
	refusedName        = "not-a-name"
	refusedNetwork     = "other-network"
	refusedUnknown     = "not-followed"
	refusedUnasked     = "not-asked-for"
	refusedSize        = "size"
	refusedFormat      = "format"
	refusedMisplaced   = "misplaced"
	refusedSignature   = "signature"
	refusedFuture      = "future"
	refusedStanding    = "not-certified"
	refusedQuarantined = "quarantined"
	refusedReplay      = "replay"
	refusedRate        = "rate"
	refusedBroker      = "broker-misbehaves"
	refusedEmpty       = "erased"
)

// refuse counts a message that is not taken.
func (c *Counts) refuse(reason string) { c.Refused[reason]++ }

// copy gives the totals as they are now.
func (c *Counts) copy() Counts {
	out := *c
	out.Refused = maps.Clone(c.Refused)
	return out
}

// reasonOf gives the word for a fault of a message.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, wire.ErrSize):
		return refusedSize
	case errors.Is(err, wire.ErrMisplaced):
		return refusedMisplaced
	case errors.Is(err, wire.ErrSignature):
		return refusedSignature
	case errors.Is(err, wire.ErrFuture):
		return refusedFuture
	case errors.Is(err, wire.ErrUncertified), errors.Is(err, wire.ErrExpired), errors.Is(err, wire.ErrRevoked):
		return refusedStanding
	}
	return refusedFormat
}
