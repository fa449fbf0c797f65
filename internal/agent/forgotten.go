package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
)

// forgotten watches whether the kernel has room to remember connections. The
// zero value is ready.
type forgotten struct {
	mu     sync.Mutex
	due    time.Time
	counts map[ban.Topic]uint64
	full   []ban.Topic // that had no room lately
}

// forgottenEvery is how often it looks, and how long a topic counts as full
// after its last packet without room.
const forgottenEvery = time.Minute

// look asks for each topic, if that is due.
func (f *forgotten) look(ctx context.Context, now time.Time, m firewall.Memory, topics []ban.Topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Before(f.due) {
		return
	}
	f.due = now.Add(forgottenEvery)
	counts := make(map[ban.Topic]uint64, len(topics))
	f.full = nil
	for _, t := range topics {
		n, err := m.Forgotten(ctx, t)
		if err != nil {
			continue
		}
		// The first look after a start says nothing about when it was.
		if before, known := f.counts[t]; known && n > before {
			f.full = append(f.full, t)
		}
		counts[t] = n
	}
	f.counts = counts
}

func (f *forgotten) warnings() []control.Warning {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.full) == 0 {
		return nil
	}
	names := make([]string, 0, len(f.full))
	for _, t := range f.full {
		names = append(names, string(t))
	}
	slices.Sort(names)
	return []control.Warning{api.MemoryFull.Warn("the kernel has no room to remember more connections: lines about later ones do not count in "+strings.Join(names, ", "), "")}
}
