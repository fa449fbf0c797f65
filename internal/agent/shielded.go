package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/history"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// shielded counts the offences that name never-ban entries. A topic whose
// offences name one of this machine's own addresses has an application that logs
// its proxy: nobody is ever banned there.
type shielded struct {
	settings func() *settings.Settings
	// entry gives the never-ban entry of a target.
	entry func(ban.Target) (neverban.Entry, bool)
	now   func() time.Time
	// note takes an event of it: the first offence, and one an hour.
	note func(history.Event)

	mu     sync.Mutex
	counts map[heldKey]shieldedCount
	recent map[ban.Topic][]ban.Target // who offended last, the zero target for who is not shielded
}

// A shieldedCount is the offences of one target in one topic.
type shieldedCount struct {
	entry    neverban.Entry
	offences int
	last     time.Time
	told     int       // offences when it was noted last
	noted    time.Time // when that was
}

const (
	// maxShielded bounds the targets in topics that are counted; the one that
	// offended longest ago makes room.
	maxShielded = 256
	// shieldedRecent is of how many offences of a topic the share is taken,
	// shieldedLeast the fewest that a share says something of.
	shieldedRecent = 32
	shieldedLeast  = 5
)

func newShielded(s func() *settings.Settings, entry func(ban.Target) (neverban.Entry, bool), now func() time.Time, note func(history.Event)) *shielded {
	return &shielded{settings: s, entry: entry, now: now, note: note, counts: map[heldKey]shieldedCount{}, recent: map[ban.Topic][]ban.Target{}}
}

// notice counts an offence.
func (s *shielded) notice(n detect.Notice) {
	e, is := neverban.Entry{}, n.Shielded
	if is {
		e, is = s.entry(n.Target)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	who := ban.Target{}
	if is {
		who = n.Target
		k := heldKey{n.Topic, n.Target}
		c, known := s.counts[k]
		if !known && len(s.counts) >= maxShielded {
			s.evict()
		}
		c.entry, c.offences = e, c.offences+1
		if n.At.After(c.last) {
			c.last = n.At
		}
		if now := s.now(); now.Sub(c.noted) >= time.Hour {
			s.note(history.Event{At: now, Kind: history.Shield, Topic: n.Topic, Target: n.Target, By: "never-ban", Why: e.String(), Count: c.offences - c.told})
			c.told, c.noted = c.offences, now
		}
		s.counts[k] = c
	}
	list := append(s.recent[n.Topic], who)
	if len(list) > shieldedRecent {
		list = slices.Delete(list, 0, 1)
	}
	s.recent[n.Topic] = list
}

// evict drops the count whose last offence is longest ago.
func (s *shielded) evict() {
	var oldest heldKey
	var at time.Time
	for k, c := range s.counts {
		if at.IsZero() || c.last.Before(at) {
			oldest, at = k, c.last
		}
	}
	delete(s.counts, oldest)
}

// about lists the counts of a target or those it overlaps, of everybody for the
// zero target, the latest first.
func (s *shielded) about(t ban.Target) (list []control.Shielded) {
	prefix, ip := t.Prefix()
	if !ip && t != (ban.Target{}) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, c := range s.counts {
		if x, _ := k.target.Prefix(); !ip || x.Overlaps(prefix) {
			list = append(list, control.Shielded{Topic: k.topic, Target: k.target, Entry: c.entry.String(), Offences: c.offences, Last: c.last})
		}
	}
	slices.SortFunc(list, func(a, b control.Shielded) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Topic, b.Topic), a.Target.Compare(b.Target))
	})
	return list
}

// warnings names the topics of whose last offences nine in ten name one address
// that a proxy may have.
func (s *shielded) warnings() (list []control.Warning) {
	conf := s.settings()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, topic := range slices.Sorted(maps.Keys(s.recent)) {
		if t, ok := conf.Find(topic); !ok || !t.Detect {
			delete(s.recent, topic)
			continue
		}
		recent := s.recent[topic]
		most, times := mostOf(recent)
		c := s.counts[heldKey{topic, most}]
		whose, proxy := proxyOf(c.entry)
		if times < shieldedLeast || times*10 < len(recent)*9 || !proxy || s.now().Sub(c.last) > heldFor {
			continue
		}
		list = append(list, api.ShieldedOnly.Warn(
			fmt.Sprintf("%s: %d of the last %d offences name %s %s, so nobody is banned: the application logs its proxy and not its client", topic, times, len(recent), whose, most),
			`see "An application behind a proxy on another machine" in docs/recipes.md; if it is no proxy, nothing`))
	}
	return list
}

// mostOf gives the shielded target that a list names most, and how often.
func mostOf(list []ban.Target) (most ban.Target, times int) {
	count := map[ban.Target]int{}
	for _, t := range list {
		if count[t]++; t != (ban.Target{}) && count[t] > times {
			most, times = t, count[t]
		}
	}
	return most, times
}

// proxyOf says whether a proxy may have an entry's address, and whose it is. Who
// is logged in, and a host that this node depends on, is no proxy before a service.
func proxyOf(e neverban.Entry) (whose string, ok bool) {
	switch e.Source {
	case neverban.SourceOwn, neverban.SourceBogon, neverban.SourceContainer:
		return "your own", true
	case neverban.SourceGateway:
		return "your gateway", true
	case neverban.SourceManual:
		return strings.TrimSpace("your never-ban entry " + e.Reason), true
	}
	return "", false
}
