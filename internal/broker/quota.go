package broker

import "time"

// A bucket lets through rate events a second, and burst at once. It may be
// overdrawn: events that are taken then have to wait.
type bucket struct {
	level float64
	at    time.Time
}

// take takes n events and says how long they have to wait.
func (k *bucket) take(now time.Time, n, rate float64, burst int) time.Duration {
	if k.at.IsZero() {
		k.level, k.at = float64(burst), now
	}
	if dt := now.Sub(k.at).Seconds(); dt > 0 {
		k.level = min(float64(burst), k.level+dt*rate)
	}
	k.at = now
	k.level -= n
	if k.level >= 0 {
		return 0
	}
	return time.Duration(-k.level / rate * float64(time.Second))
}

// has says whether one event would pass at once.
func (k *bucket) has(now time.Time, rate float64, burst int) bool {
	k.take(now, 0, rate, burst)
	return k.level >= 1
}

// reserve takes one event where it has to wait no longer than a time.
func (k *bucket) reserve(now time.Time, rate float64, burst int, most time.Duration) (wait time.Duration, ok bool) {
	if wait = k.take(now, 1, rate, burst); wait <= most {
		return wait, true
	}
	k.level++
	return 0, false
}

// pace holds a client up that is faster than its rate; false means that it is
// too fast even for that. Only its own goroutine waits.
func (b *Broker) pace(c *conn, now time.Time) bool { return b.charge(c, 1, now) }

// searchPrice is how many levels of topics a search may look at for the price of one
// publication: both take some 20 microseconds.
const searchPrice = 256

// filterPrice is how many filters of a SUBSCRIBE cost as much as one
// publication.
const filterPrice = 8

// charge is pace for work that costs as much as n publications.
func (b *Broker) charge(c *conn, n float64, now time.Time) bool {
	if n <= 0 {
		return true
	}
	d := b.perIP.wait(c.who, c.remote.Addr(), n, now, &b.limits)
	if d <= 0 {
		return true
	}
	b.count.paced.Inc()
	t := time.NewTimer(min(d, maxDelay))
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
		return false
	}
	return d <= maxDelay
}
