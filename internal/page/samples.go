package page

import (
	"context"
	"sync"
	"time"

	"banmesh/internal/control"
)

const (
	// sampleEvery is how often the counters of drops are written down.
	sampleEvery = 5 * time.Minute
	// maxSamples keeps a day of them.
	maxSamples = int(24*time.Hour/sampleEvery) + 1
	// maxSampled bounds the topics, and the operators, of one sample.
	maxSampled = 64
)

// samples are the packets that bans met, over time. They are
// in memory alone: the kernel counts from when its table was made, and this from
// when the agent began.
type samples struct {
	now func() time.Time

	mu   sync.Mutex
	list []sample // oldest first
}

type sample struct {
	at        time.Time
	topics    map[string]uint64 // packets by topic
	operators map[string]uint64 // and by operator, where a topic is observed
}

func newSamples(now func() time.Time) *samples { return &samples{now: now} }

// run writes counters down until ctx ends.
func (s *samples) run(ctx context.Context, node *control.Client) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		var status control.Status
		if node.Get(ctx, "/v1/status", nil, &status) == nil { // else there is a gap, as there should be
			s.take(status)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take writes the counters of a status down.
func (s *samples) take(status control.Status) {
	x := sample{at: s.now(), topics: map[string]uint64{}, operators: map[string]uint64{}}
	for _, t := range status.Topics {
		if (t.Packets > 0 || t.Bans > 0) && len(x.topics) < maxSampled {
			x.topics[string(t.Topic)] = t.Packets
		}
		for _, o := range t.Operators {
			if _, known := x.operators[o.Name]; known || len(x.operators) < maxSampled {
				x.operators[o.Name] += o.Packets
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == maxSamples {
		s.list = s.list[1:]
	}
	s.list = append(s.list, x)
}

// met gives the packets of each topic, and of each operator, in each of n slots of a
// length that end at a time.
func (s *samples) met(end time.Time, length time.Duration, n int) (topics, operators []tally, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return nil, nil, time.Time{}
	}
	for i := 1; i < len(s.list); i++ {
		a, b := s.list[i-1], s.list[i]
		slot := n - 1 - int(end.Sub(b.at)/length)
		if slot < 0 || slot >= n {
			continue
		}
		topics = grown(topics, slot, a.topics, b.topics)
		operators = grown(operators, slot, a.operators, b.operators)
	}
	return topics, operators, s.list[0].at
}

// grown appends by how much counters grew. One that went back was begun anew.
func grown(list []tally, slot int, before, now map[string]uint64) []tally {
	for name, packets := range now {
		more := packets
		if was := before[name]; packets >= was {
			more = packets - was
		}
		if more > 0 {
			list = append(list, tally{slot, name, int(min(more, 1<<26))})
		}
	}
	return list
}

// tally is how many of something there were in a slot.
type tally struct {
	slot  int
	name  string
	count int
}
