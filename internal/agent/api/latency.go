package api

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
)

const (
	// maxTimed bounds the bans whose way to the kernel is timed at once: of a
	// feed that is joined the first ones.
	maxTimed = 4096
	// timedFor is how long one that became no ban keeps its place.
	timedFor = time.Minute
)

// A Latency times bans on their way to the kernel, in a histogram of seconds.
type Latency struct {
	histogram prometheus.Histogram
	now       func() time.Time

	mu      sync.Mutex
	begun   map[timed]time.Time
	cleared time.Time
}

type timed struct {
	topic  ban.Topic
	target ban.Target
}

func newLatency(name, help string, now func() time.Time) *Latency {
	return &Latency{now: now, begun: map[timed]time.Time{}, histogram: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	})}
}

// NewLineLatency times bans from the time in the log line that was one offence
// too many.
func NewLineLatency(now func() time.Time) *Latency {
	return newLatency("banmesh_line_to_kernel_seconds", "Time from the date of the log line that led to a ban until the kernel had the ban; dates of whole seconds count a part of one too much.", now)
}

// NewClaimLatency times bans from the arrival of the claim that they rest on.
func NewClaimLatency(now func() time.Time) *Latency {
	return newLatency("banmesh_claim_to_kernel_seconds", "Time from the arrival of a peer's claim until the kernel had the ban that it led to.", now)
}

// Begin notes when something came that may become a ban. Of several the first
// counts, and beyond [maxTimed] that wait none does.
func (l *Latency) Begin(topic ban.Topic, target ban.Target, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.begun) >= maxTimed && now.Sub(l.cleared) >= timedFor {
		l.cleared = now
		for k, since := range l.begun {
			if now.Sub(since) >= timedFor {
				delete(l.begun, k)
			}
		}
	}
	key := timed{topic, target}
	if _, waits := l.begun[key]; waits || len(l.begun) >= maxTimed {
		return
	}
	l.begun[key] = at
}

// End observes that the kernel has a ban; one that never began is not counted.
func (l *Latency) End(topic ban.Topic, target ban.Target) {
	l.mu.Lock()
	key := timed{topic, target}
	at, waits := l.begun[key]
	delete(l.begun, key)
	l.mu.Unlock()
	if waits {
		l.histogram.Observe(max(0, l.now().Sub(at).Seconds()))
	}
}

// Forget ends the timing of something that became no ban.
func (l *Latency) Forget(topic ban.Topic, target ban.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.begun, timed{topic, target})
}
