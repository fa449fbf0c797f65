package broker

import (
	"time"

	"banmesh/internal/wire"
)

// goodbyeGap is the longest pause between two goodbyes: 50 clients take the
// whole drain time of ten seconds, and a broker of five stops within one.
const goodbyeGap = 200 * time.Millisecond

// goodbyeAt gives when the client of a number among n hears goodbye, counted
// from the first one.
func goodbyeAt(i, n int, drain time.Duration) time.Duration {
	return min(drain/time.Duration(n), goodbyeGap) * time.Duration(i)
}

// goodbye closes every connection, spread over the drain time. A client whose
// publications are on their way to the disk is waited for, as long again.
func (b *Broker) goodbye() {
	b.connsMu.Lock()
	b.closing = true
	all := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		all = append(all, c)
	}
	b.connsMu.Unlock()
	began := time.Now()
	var unsettled []*conn
	for i, c := range all {
		pause(time.Until(began.Add(goodbyeAt(i, len(all), b.limits.DrainTime))), c.closed)
		if c.unsettled.len() > 0 {
			unsettled = append(unsettled, c)
			continue
		}
		b.leave(c)
	}
	end := time.Now().Add(b.limits.DrainTime)
	for _, c := range unsettled {
		for c.unsettled.len() > 0 && time.Now().Before(end) && !pause(time.Millisecond, c.closed) {
		}
		b.leave(c)
	}
}

// leaveMost is how long the notice of a goodbye may take to be written.
const leaveMost = 100 * time.Millisecond

// leave ends a client's connection, and tells one that listens for notices that
// it is in order: it need not come back at once.
func (b *Broker) leave(c *conn) {
	if s := c.announced.Load(); s != nil {
		s.subsMu.Lock()
		_, listens := s.subs[wire.RefusalTopic]
		s.subsMu.Unlock()
		if listens {
			b.notice(c, wire.Refusal{Reason: wire.RefusedLeaving, Topic: wire.RefusalTopic, Count: 1})
			c.out.awaitIdle(leaveMost)
		}
	}
	c.kick("shutting down")
}

// pause waits for a time, or until a channel is closed, and says whether it is.
func pause(d time.Duration, closed <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false
	case <-closed:
		return true
	}
}
