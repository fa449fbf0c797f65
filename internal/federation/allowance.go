package federation

import (
	"time"

	"banmesh/internal/wire"
)

// An allowance says how much work may be done for somebody: a token bucket.
type allowance struct {
	burst, second float64
	tokens        float64
	refilled      time.Time
}

// take takes tokens if there are as many.
func (a *allowance) take(now time.Time, tokens float64) bool {
	if !a.has(now, tokens) {
		return false
	}
	a.tokens -= tokens
	return true
}

// has says whether there are as many tokens now.
func (a *allowance) has(now time.Time, tokens float64) bool {
	if a.refilled.IsZero() {
		a.tokens, a.refilled = a.burst, now
	}
	if d := now.Sub(a.refilled); d > 0 {
		a.tokens = min(a.burst, a.tokens+d.Seconds()*a.second)
	}
	a.refilled = now // also by a clock that was put back
	return a.tokens >= tokens
}

// The cost that the messages of one feed may have, whichever broker delivers them. Only
// messages with a good signature are charged, so nobody but the author spends
// it. A message beyond is dropped; it is retained and asked for again.
const (
	rateBurst  = 4096
	rateSecond = 500
	// rateBytes is the bytes of a message that cost a token, beside the one
	// that each costs: a full delta takes a thousand times as long as a small one.
	rateBytes = 512
)

// messageCost is the tokens that a message of a feed costs.
func messageCost(payload []byte) float64 { return float64(1 + len(payload)/rateBytes) }

// Messages with a bad signature, or none of the protocol, that a broker may
// deliver. They cost as much to check as good ones; a broker beyond is
// disconnected, so that it keeps nothing from the others.
const (
	badBurst  = 256
	badSecond = 1
)

// Rates at which cards and documents of one operator are taken: they change
// rarely, and are retained.
const (
	documentBurst  = 256
	documentSecond = 8
)

// Epochs of one feed that are taken: an author begins again once, or twice
// after a restore, and each costs a reader a join. A newer one waits.
const (
	epochBurst  = 2
	epochSecond = 1.0 / 60
)

// Joins of one feed: the pause before the next doubles until one is complete,
// and they are so many in the long run.
const (
	joinLeast  = 2 * time.Second
	joinMost   = time.Minute
	joinBurst  = 4
	joinSecond = 1.0 / 30
)

// Pieces of one feed that are verified: those of the largest feed at once.
const (
	pieceBurst  = 3 * wire.MaxPieces
	pieceSecond = 50
)
