package federation

import (
	"time"

	"banmesh/internal/wire"
)

// epochs bounds how often a feed begins again, and notices when two machines
// write it.
type epochs struct {
	allowed allowance
	// later is the newest head that begins an epoch and had to wait.
	later *wire.Message
	// rivals is when a message of an older epoch was dated after the newest
	// head; no single author writes one.
	rivals time.Time
	begun  []time.Time // of the last epochs
}

// How readers tell that a feed is contested.
const (
	contestedFor   = 15 * time.Minute // since the last sign
	contestedFresh = 2 * time.Minute  // the age of a message that is no replay
	// contestedEpochs within contestedWithin are more than one author begins, who
	// may have to several times after a backup was restored.
	contestedEpochs = restartsMost + 2
	contestedWithin = 10 * time.Minute
)

// begin says whether the head m, which begins a new epoch, is taken now. If not,
// it waits. first says that no epoch of the feed was known before.
func (e *epochs) begin(m *wire.Message, first bool, now time.Time) bool {
	if !first && (e.later == nil || e.later.Header.Epoch < m.Header.Epoch) {
		e.begun = append(e.begun[max(0, len(e.begun)-contestedEpochs+1):], now)
	}
	if e.allowed.take(now, 1) {
		if e.later != nil && e.later.Header.Epoch <= m.Header.Epoch {
			e.later = nil
		}
		return true
	}
	if e.later == nil || newerHead(m, e.later) {
		e.later = m
	}
	return false
}

func newerHead(m, old *wire.Message) bool {
	return m.Header.Epoch > old.Header.Epoch || m.Header.Epoch == old.Header.Epoch && m.Header.Number > old.Header.Number
}

// due gives the head that waits once its time has come.
func (e *epochs) due(now time.Time) (m *wire.Message) {
	if e.later == nil || !e.allowed.has(now, 1) {
		return nil
	}
	m, e.later = e.later, nil
	return m
}

// notice looks for a message of an older epoch that was written just now, after
// the newest head.
func (e *epochs) notice(f *follower, m *wire.Message, now time.Time) {
	age := now.Sub(m.Header.Issued).Abs()
	if f.head != nil && m.Header.Epoch < f.headEpoch && m.Header.Issued.After(f.headIssued) && age < contestedFresh {
		e.rivals = now
	}
}

// contested says whether two machines seem to write the feed.
func (f *follower) contested(now time.Time) bool {
	e := &f.epochs
	if !e.rivals.IsZero() && now.Sub(e.rivals).Abs() < contestedFor {
		return true
	}
	return len(e.begun) >= contestedEpochs && now.Sub(e.begun[0]).Abs() < contestedWithin
}
