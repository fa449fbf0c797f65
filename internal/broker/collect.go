package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"banmesh/internal/broker/retained"
)

const (
	// collectEvery is how often old feeds are looked for.
	collectEvery = 10 * time.Minute
	// collectShare is the share of all feeds that one pass removes at most, and
	// collectLeast a number that it always may. A pass that would remove
	// everything has a fault, and somebody can still stop it.
	collectShare = 50
	collectLeast = 16
)

// collect removes feeds of which nothing was heard for longer than the policy
// says, until ctx ends. An author says at least a head a day, so a silent feed
// has lost its author. Silence is measured by the store's own clock, which runs
// while the broker does: no setting of the machine's clock ages a feed.
func (b *Broker) collect(ctx context.Context) {
	t := time.NewTicker(collectEvery)
	defer t.Stop()
	for {
		if b.limits.FeedAge > 0 {
			b.collectOnce()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.store.Tick()
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

// A silentFeed is one of which nothing was heard for long.
type silentFeed struct {
	name     string
	heard    time.Duration
	messages []*retained.Message
}

// silent gives the feeds that are due, the longest silent first, and how many
// feeds there are. An operator's documents stay while a feed of the operator
// does.
func (b *Broker) silent() (due []silentFeed, all int) {
	oldest := b.store.Uptime() - b.limits.FeedAge
	feeds := map[string]*silentFeed{}
	operators := map[string]bool{}
	for _, m := range b.store.All() {
		name := feedOf(m.Topic)
		f := feeds[name]
		if f == nil {
			f = &silentFeed{name: name}
			feeds[name] = f
		}
		f.messages = append(f.messages, m)
		f.heard = max(f.heard, m.Heard)
	}
	for name, f := range feeds {
		if levels := strings.Split(name, "/"); len(levels) == 6 && levels[3] != "operators" && f.heard > oldest {
			operators[levels[4]] = true
		}
	}
	for name, f := range feeds {
		levels := strings.Split(name, "/")
		document := len(levels) > 4 && levels[3] == "operators"
		if f.heard <= oldest && !(document && operators[levels[4]]) {
			due = append(due, *f)
		}
	}
	slices.SortFunc(due, func(a, b silentFeed) int {
		if a.heard != b.heard {
			return int(a.heard/time.Second - b.heard/time.Second)
		}
		return strings.Compare(a.name, b.name)
	})
	return due, len(feeds)
}

// collectOnce removes the feeds that are due, a share of all at most.
func (b *Broker) collectOnce() (removed int) {
	due, all := b.silent()
	due = due[:min(len(due), max(collectLeast, all/collectShare))]
	for _, f := range due {
		for _, m := range f.messages {
			if _, err := b.store.Delete(m.Topic); err == nil {
				removed++
			}
		}
	}
	if removed > 0 {
		b.admission.forgetCards()
		b.count.collected.Add(float64(removed))
		b.log.Info("collected old feeds", "messages", removed)
	}
	return removed
}
