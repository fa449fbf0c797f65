package broker

import (
	"strings"
	"sync"

	"banmesh/internal/broker/tree"
)

// An index finds the subscribers of a topic. The engine's own is not used: it
// copies two maps a publication, and its cost grows with the square of a
// topic's depth.
type index struct {
	mu      sync.RWMutex
	filters tree.Tree[*audience]
	count   int
	texts   int // bytes of distinct filters
}

// An audience is who subscribed to one filter.
type audience struct {
	filter  string // shared by all of its members
	members map[*session]byte
	// list is the same as a slice that does not change any more; nil when it
	// is out of date.
	listMu sync.Mutex
	list   []member
}

// A member is a session and the quality of service that it was granted.
type member struct {
	s   *session
	qos byte
}

func (a *audience) snapshot() []member {
	a.listMu.Lock()
	defer a.listMu.Unlock()
	if a.list == nil {
		a.list = make([]member, 0, len(a.members))
		for s, qos := range a.members {
			a.list = append(a.list, member{s, qos})
		}
	}
	return a.list
}

// subscribe adds or changes a subscription; the caller keeps the session's own
// list, under the text that it gives back, which all subscribers share. added
// estimates the memory beside the subscription itself: that of a filter, and of
// levels, that nobody had before.
func (x *index) subscribe(s *session, filter string, qos byte) (shared string, added int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a, ok := x.filters.Get(filter)
	if !ok {
		filter = strings.Clone(filter)
		a = &audience{filter: filter, members: make(map[*session]byte, 1)}
		added = x.filters.Set(filter, a)*levelBytes + textBytes(filter)
		x.texts += textBytes(filter)
	}
	if _, had := a.members[s]; !had {
		x.count++
	}
	a.members[s] = qos
	a.list = nil
	return a.filter, added
}

func (x *index) unsubscribe(s *session, filters ...string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, filter := range filters {
		a, ok := x.filters.Get(filter)
		if !ok {
			continue
		}
		if _, had := a.members[s]; had {
			x.count--
		}
		delete(a.members, s)
		a.list = nil
		if len(a.members) == 0 {
			x.texts -= textBytes(filter)
			x.filters.Delete(filter)
		}
	}
}

// bytes estimates the memory of all filters.
func (x *index) bytes() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.filters.Levels()*levelBytes + x.texts + x.count*filterBytes
}

// subscriptions is how many there are.
func (x *index) subscriptions() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.count
}

// audience gives who shall receive a publication on topic, each once, with the
// best quality of service that was granted.
func (x *index) audience(topic string) []member {
	var lists [8][]member
	found := lists[:0]
	x.mu.RLock()
	x.filters.Matching(topic, func(a *audience) { found = append(found, a.snapshot()) })
	x.mu.RUnlock()
	switch len(found) {
	case 0:
		return nil
	case 1:
		return found[0]
	}
	best := make(map[*session]byte, len(found[0]))
	for _, list := range found {
		for _, m := range list {
			if q, ok := best[m.s]; !ok || m.qos > q {
				best[m.s] = m.qos
			}
		}
	}
	out := make([]member, 0, len(best))
	for s, qos := range best {
		out = append(out, member{s, qos})
	}
	return out
}
