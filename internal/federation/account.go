package federation

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// The memory that feeds of one operator may make a reader hold, all of its nodes and
// topics together: an operator certifies as many nodes as it likes, and each of
// their feeds alone has the limits of package wire.
const (
	// maxOperatorPending is the bytes of deltas that wait for the one before
	// them. Those beyond are asked for again when they are next.
	maxOperatorPending = 2 * wire.MaxPendingBytes
	// maxOperatorJoining is the bytes of pieces that joins gather; one feed, of
	// whatever size, may always join.
	maxOperatorJoining = wire.MaxFeedBytes
	// maxOperatorClaims is the claims that are read, of which the ledger takes as
	// many as the topic's limits say. A feed beyond is too large.
	maxOperatorClaims = 2 * wire.MaxFeedClaims
	// joinMostOf is how long a join may keep others of its operator waiting.
	joinMostOf = 5 * time.Minute
)

// An account is how much the feeds of one operator hold. The session's lock is
// held over every method.
type account struct {
	pending, joining int // bytes
	claims           int
}

// accountOf gives the account that all feeds of an operator share.
func (r *reader) accountOf(o ban.Operator) *account {
	if r.accounts == nil {
		r.accounts = map[ban.Operator]*account{}
	}
	a := r.accounts[o]
	if a == nil {
		a = &account{}
		r.accounts[o] = a
	}
	return a
}

// settle makes the account right about a feed.
func (f *follower) settle() {
	now := account{pending: f.pending.bytes, claims: f.set.count}
	if f.join != nil {
		now.joining = f.join.bytes
	}
	f.account.pending += now.pending - f.counted.pending
	f.account.joining += now.joining - f.counted.joining
	f.account.claims += now.claims - f.counted.claims
	f.counted = now
}

// entryMemory is the bytes that a decoded change of a delta takes.
const entryMemory = 40

// memoryOf gives the bytes that a delta takes while it waits, decoded.
func memoryOf(m *wire.Message) int {
	n := len(m.Raw)
	if d, ok := m.Body.(*wire.Delta); ok {
		n += entryMemory * (len(d.Up) + len(d.Down))
	}
	return n
}

// roomForDelta says whether so many bytes more may wait.
func (f *follower) roomForDelta(more int) bool {
	return f.pending.bytes+more <= wire.MaxPendingBytes && f.account.pending-f.counted.pending+f.pending.bytes+more <= maxOperatorPending
}

// roomForJoin says whether a join of so many bytes may begin: the first one of
// its operator always, a further one where both fit.
func (f *follower) roomForJoin(bytes int) bool {
	others := f.account.joining - f.counted.joining
	return others == 0 || others+bytes <= maxOperatorJoining
}

// roomForClaims says whether a state of so many claims may be read.
func (f *follower) roomForClaims(claims int) bool {
	return claims <= wire.MaxFeedClaims && f.account.claims-f.counted.claims+claims <= maxOperatorClaims
}
