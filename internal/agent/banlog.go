package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
)

// Limits of the lines that bans of peers get: a feed that is joined brings
// thousands at once, and a journal drops lines that come too fast, warnings
// among them.
const (
	// banLines is how many bans of peers have a line of their own in a window.
	banLines = 10
	// banWindow is how long the others are counted before they are told.
	banWindow = 10 * time.Second
	// banNames bounds the topics that a summary names.
	banNames = 8
)

// A banLog tells of bans that begin: each of this node's own in a line, and those
// of peers together where they are many. The enforcer's loop alone calls it.
type banLog struct {
	log *slog.Logger
	now func() time.Time

	begun  time.Time // of the window
	lines  int
	topics map[ban.Topic]int // those without a line of their own
	first  ban.Target
	last   time.Time // when one was added
}

// add tells of bans, or counts them.
func (b *banLog) add(ctx context.Context, bans []ledger.Enforced, mode string) {
	now := b.now()
	if now.Sub(b.begun) >= banWindow {
		b.flush(ctx, mode)
		b.begun, b.lines = now, 0
	}
	peers := 0
	for _, x := range bans {
		if !x.Own {
			peers++
		}
	}
	// A batch that is more than there are lines for is counted whole.
	together := b.lines+peers > banLines
	for _, x := range bans {
		if x.Own || !together {
			b.log.InfoContext(ctx, "ban", slog.String("target", x.Target.String()), slog.String("topic", string(x.Topic)),
				slog.Time("until", x.Until), slog.String("enforcement", mode))
			continue
		}
		if b.topics == nil {
			b.topics, b.first = make(map[ban.Topic]int), x.Target
		}
		b.topics[x.Topic]++
		b.last = now
	}
	if !together {
		b.lines += peers
	}
}

// flush tells of the bans that were counted.
func (b *banLog) flush(ctx context.Context, mode string) {
	if b.topics == nil {
		return
	}
	sum := 0
	var names []string
	for _, t := range slices.Sorted(maps.Keys(b.topics)) {
		sum += b.topics[t]
		if len(names) < banNames {
			names = append(names, string(t))
		}
	}
	b.log.InfoContext(ctx, "bans of peers", slog.Int("bans", sum), slog.String("topics", strings.Join(names, ",")),
		slog.String("first", b.first.String()), slog.String("enforcement", mode))
	b.topics = nil
}

// tick tells of the bans that were counted, once no more come or the window is over.
func (b *banLog) tick(ctx context.Context, mode string) {
	if now := b.now(); b.topics != nil && (now.Sub(b.last) >= checkEvery || now.Sub(b.begun) >= banWindow) {
		b.flush(ctx, mode)
	}
}
