package lapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/credentials"
	"banmesh/internal/compat/recent"
	"banmesh/internal/compat/serving"
)

// windows are how far back the changes go that a delta repeats: several
// processes with one key take each other's changes, and adding twice or
// deleting what is not there harms nobody. The smallest that is three times the
// longest pause of the client is taken; beyond the last it is given everything.
var windows = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour}

// answerFor is how long one rendered answer is given to all who ask the same:
// its durations are too long by that at most.
const answerFor = time.Second

// stream answers a bouncer that keeps a copy: everything at first, then the
// changes.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, id identity, b credentials.Bouncer) {
	q := r.URL.Query()
	f, _, err := readQuery(q, b.Topics)
	if err != nil {
		serving.Fault(w, http.StatusBadRequest, err.Error())
		return
	}
	startup := q.Get("startup") == "true"
	over := s.turn(b.Name)
	after, window, flat := s.place(id, r.UserAgent(), b)
	newest := s.recent.Newest()
	whole := startup || window == 0
	var events []recent.Event
	if !whole {
		events, newest, whole = s.recent.Since(after, window)
	}
	if whole {
		window = 0
	}
	body, told := s.answers.get(answerKey{f.key(), window, flat}, s.o.Table.Serial(), newest, s.o.Elapsed(), func() ([]byte, int) {
		return s.render(&f, events, whole, flat)
	})
	s.pulled(id, r, b, newest, whole, told)
	over()
	s.send(w, r, body)
}

// render makes the answer of everything, or of events. A value is never in both lists:
// some bouncers apply new decisions first, others deleted ones.
func (s *Server) render(f *filter, events []recent.Event, whole, flat bool) (body []byte, told int) {
	now := s.o.Now()
	if whole {
		s.rendering <- struct{}{}
		defer func() { <-s.rendering }()
		events = s.recent.Gone()
	}
	changed, ended := s.changes(f, events, now)
	fresh, deleted := slices.Values(changed), slices.Values(ended)
	if whole {
		fresh = s.all(f)
	}
	if flat {
		fresh, deleted = singles(fresh), singles(deleted)
	}
	gone := map[netip.Prefix]bool{}
	for d := range deleted {
		gone[d.prefix] = true
	}
	for range fresh {
		told++
	}
	// Of a hundred thousand the answer alone takes 12 MB.
	body = make([]byte, 0, 64+160*(len(gone)*(1+len(s.endings()))+told))
	told = 0
	body = appendList(append(body, `{"new":`...), func(yield func(decision) bool) {
		for d := range fresh {
			told++
			delete(gone, d.prefix)
			if !yield(d) {
				return
			}
		}
	}, now)
	body = appendList(append(body, `,"deleted":`...), func(yield func(decision) bool) {
		for d := range deleted {
			if gone[d.prefix] && !yield(d) {
				return
			}
		}
	}, now)
	return append(body, '}'), told
}

// changes gives the state now of each target that events name.
func (s *Server) changes(f *filter, events []recent.Event, now time.Time) (fresh, deleted []decision) {
	seen := make(map[ban.Target]bool, len(events))
	for _, e := range slices.Backward(events) {
		if e.Target.IsZero() || seen[e.Target] || !f.topic(e.Topic) {
			continue // of other topics: the state in ours is as it was
		}
		seen[e.Target] = true
		if d, ok := s.strongest(f, s.o.Table.Of(e.Target)); ok {
			fresh = append(fresh, d)
			continue
		}
		p, ok := e.Target.Prefix()
		if single := p.IsSingleIP(); !ok || single && !f.ip || !single && !f.wide {
			continue
		}
		for _, origin := range s.endings() {
			if len(f.origins) == 0 || slices.Contains(f.origins, origin) {
				deleted = append(deleted, decision{prefix: p, topic: e.Topic, class: e.Class, origin: origin, until: now.Add(-time.Second)})
			}
		}
	}
	return fresh, deleted
}

// endings are the origins under which a ban may have been told: it is ended for each.
func (s *Server) endings() []string {
	if s.o.Operator != nil {
		return s.origins.all()
	}
	return []string{OriginHere, OriginNetwork}
}

// place gives where a client left off, how far back its changes are repeated (0
// for everything), and whether it understands no ranges.
func (s *Server) place(id identity, userAgent string, b credentials.Bouncer) (after uint64, window time.Duration, flat bool) {
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	now := s.o.Elapsed()
	c := s.clients.of(id, userAgent, b.Topics, now)
	if !c.started {
		return 0, 0, c.Flat
	}
	pause := max(c.pause, now-c.pulled)
	for _, window := range windows {
		if 3*pause <= window {
			return c.seq, window, c.Flat
		}
	}
	return 0, 0, c.Flat
}

// pulled notes an answer.
func (s *Server) pulled(id identity, r *http.Request, b credentials.Bouncer, newest uint64, whole bool, told int) {
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	now := s.o.Elapsed()
	c := s.clients.of(id, r.UserAgent(), b.Topics, now)
	if c.started { // also before a full answer: another process of this key may have begun
		c.pause = max(c.pause-c.pause/64, now-c.pulled)
	}
	c.pulled, c.Pulled = now, s.o.Now()
	if strings.HasSuffix(r.URL.Path, "/stream") {
		c.seq, c.started = newest, true
	}
	if whole {
		c.Told = told
	}
}

// answers keeps rendered answers for a moment, so that a thousand bouncers cost
// one rendering.
type answers struct {
	mu   sync.Mutex
	kept map[answerKey]*answer
}

type answerKey struct {
	filter string
	window time.Duration
	flat   bool
}

type answer struct {
	once           sync.Once
	serial, newest uint64
	made           time.Duration
	body           []byte
	told           int
	size           int // of body once it is rendered; answers.mu guards it
}

// maxAnswers bounds the kinds of answers that are kept at once, and maxKept the
// bytes of those that are rendered.
const (
	maxAnswers = 64
	maxKept    = 32 << 20
)

// get gives a kept answer of the same state, or has it rendered: once for all
// who ask meanwhile.
func (a *answers) get(key answerKey, serial, newest uint64, now time.Duration, render func() ([]byte, int)) ([]byte, int) {
	a.mu.Lock()
	if a.kept == nil {
		a.kept = map[answerKey]*answer{}
	}
	x, ok := a.kept[key]
	if !ok || x.serial != serial || x.newest != newest || now-x.made >= answerFor {
		kept := 0
		for _, old := range a.kept {
			kept += old.size
		}
		for k, old := range a.kept {
			if now-old.made >= answerFor || len(a.kept) >= maxAnswers || kept > maxKept {
				kept -= old.size
				delete(a.kept, k)
			}
		}
		x = &answer{serial: serial, newest: newest, made: now}
		a.kept[key] = x
	}
	a.mu.Unlock()
	x.once.Do(func() {
		x.body, x.told = render()
		a.mu.Lock()
		x.size = len(x.body)
		a.mu.Unlock()
	})
	return x.body, x.told
}

// origins are the operators' names that were told as origins.
type origins struct {
	mu    sync.Mutex
	names []string
}

// of gives the origin for an operator, the network for those beyond the bound.
func (o *origins) of(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case name == "":
		return OriginNetwork
	case slices.Contains(o.names, name):
		return name
	case len(o.names) >= maxOrigins:
		return OriginNetwork
	}
	o.names = append(o.names, name)
	return name
}

func (o *origins) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string{OriginHere, OriginNetwork}, o.names...)
}
