package broker

import (
	"context"
	"strings"
	"time"

	"banmesh/internal/broker/retained"
)

// collectEvery is how often old feeds are looked for.
const collectEvery = 10 * time.Minute

// collect removes feeds of which nothing was heard for longer than the policy
// says, until ctx ends. An author says at least a head a day, so a silent feed
// has lost its author.
func (b *Broker) collect(ctx context.Context) {
	if b.limits.FeedAge <= 0 {
		return
	}
	t := time.NewTicker(collectEvery)
	defer t.Stop()
	for {
		b.collectOnce(b.now())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// feedOf gives the part of a topic that names a feed, or the whole topic of an
// operator's document.
func feedOf(topic string) string {
	levels := strings.SplitN(topic, "/", 7)
	if len(levels) < 7 || levels[3] == "operators" {
		return topic
	}
	return strings.Join(levels[:6], "/")
}

// collectOnce removes what is too old, by feed: its youngest message counts.
// An operator's documents stay while a feed of the operator does.
func (b *Broker) collectOnce(now time.Time) (removed int) {
	oldest := now.Add(-b.limits.FeedAge)
	feeds := map[string][]*retained.Message{}
	youngest := map[string]time.Time{}
	operators := map[string]bool{}
	for _, m := range b.store.All() {
		f := feedOf(m.Topic)
		feeds[f] = append(feeds[f], m)
		if m.Received.After(youngest[f]) {
			youngest[f] = m.Received
		}
	}
	for f := range feeds {
		if levels := strings.Split(f, "/"); len(levels) == 6 && levels[3] != "operators" && youngest[f].After(oldest) {
			operators[levels[4]] = true
		}
	}
	for f, messages := range feeds {
		levels := strings.Split(f, "/")
		document := len(levels) > 4 && levels[3] == "operators"
		if youngest[f].After(oldest) || document && operators[levels[4]] {
			continue
		}
		for _, m := range messages {
			if b.store.Delete(m.Topic, nil) == nil {
				removed++
			}
		}
	}
	if removed > 0 {
		b.count.collected.Add(float64(removed))
		b.log.Info("collected old feeds", "messages", removed)
	}
	return removed
}
