package broker

import (
	"sync"
)

// A flusher writes to clients for which something is pending, so that one system
// call carries the bytes of several publications.
type flusher struct {
	mu    sync.Mutex
	queue []*conn
	due   chan struct{}
}

// flushers spreads clients over as many flushers as there are processors.
type flushers []*flusher

func newFlushers(n int) flushers {
	f := make(flushers, n)
	for i := range f {
		f[i] = &flusher{due: make(chan struct{}, 1)}
	}
	return f
}

func (f flushers) of(c *conn) *flusher { return f[c.number%uint64(len(f))] }

func (f flushers) add(c *conn) { f.of(c).add(c) }

// addAll adds several at once, with one turn of each lock.
func (f flushers) addAll(cs []*conn) {
	for i, one := range f {
		found := false
		for _, c := range cs {
			if c.number%uint64(len(f)) != uint64(i) {
				continue
			}
			if !found {
				one.mu.Lock()
				found = true
			}
			one.queue = append(one.queue, c)
		}
		if found {
			one.mu.Unlock()
			one.wake()
		}
	}
}

func (f *flusher) add(c *conn) {
	f.mu.Lock()
	f.queue = append(f.queue, c)
	f.mu.Unlock()
	f.wake()
}

func (f *flusher) wake() {
	select {
	case f.due <- struct{}{}:
	default: // a pass is due already
	}
}

// run flushes until quit is closed.
func (f *flusher) run(quit <-chan struct{}) {
	var batch []*conn
	for {
		select {
		case <-quit:
			return
		case <-f.due:
		}
		f.mu.Lock()
		batch, f.queue = f.queue, batch[:0]
		f.mu.Unlock()
		for i, c := range batch {
			c.out.flush()
			batch[i] = nil
		}
	}
}
