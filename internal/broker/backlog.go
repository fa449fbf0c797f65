package broker

import (
	"time"
)

// refusing says whether the client's socket takes no more bytes now, so that
// the client and not the broker is behind. The caller holds mu.
func (o *outbound) refusing() bool {
	if o.began.IsZero() {
		return false
	}
	// A write below TLS or WebSocket cannot say whether the socket was full.
	return o.c.raw != nil || time.Since(o.began) > blockedTime
}

// blocked notes that a write waits for the client from now on, unblocked that
// none does any more.
func (o *outbound) blocked() {
	o.mu.Lock()
	o.began = time.Now()
	o.mu.Unlock()
}

func (o *outbound) unblocked() {
	o.mu.Lock()
	o.began = time.Time{}
	o.mu.Unlock()
}

// A backlog says why bytes wait for a client.
type backlog byte

const (
	backlogNone    backlog = iota // few do
	backlogOwn                    // the broker did not get round to writing them
	backlogReading                // the client takes bytes, more slowly than they come
	backlogStalled                // the client takes none
)

// backlog says why more than a quarter of the limit waits. The caller holds mu.
func (o *outbound) backlog() backlog {
	switch {
	case !o.refusing():
		if o.queued > o.c.b.limits.MaxQueued/4 {
			return backlogOwn
		}
		return backlogNone
	case time.Since(o.took) >= readingTime:
		return backlogStalled
	case o.queued > o.c.b.limits.MaxQueued/4:
		return backlogReading
	}
	return backlogNone
}
