package lapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/recent"
	"banmesh/internal/export"
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
	f, _, err := readQuery(q, s.topics(b))
	if err != nil {
		fault(w, http.StatusBadRequest, err.Error())
		return
	}
	startup := q.Get("startup") == "true"
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
	s.send(w, r, body)
}

// render makes the answer of everything, or of events.
func (s *Server) render(f *filter, events []recent.Event, whole, flat bool) (body []byte, told int) {
	now := s.o.Now()
	var fresh, deleted []decision
	if whole {
		s.rendering <- struct{}{}
		defer func() { <-s.rendering }()
		_, deleted = s.changes(f, s.recent.Gone(), now)
		if !flat {
			return s.renderWhole(f, deleted, now)
		}
		fresh = s.all(f)
	} else {
		fresh, deleted = s.changes(f, events, now)
	}
	if flat {
		fresh = expand(fresh)
		deleted = without(expand(deleted), fresh)
	}
	return appendStream(fresh, deleted, now), len(fresh)
}

// renderWhole makes the answer of everything without a list of it: of a hundred
// thousand the answer alone takes 12 MB.
func (s *Server) renderWhole(f *filter, deleted []decision, now time.Time) (body []byte, told int) {
	s.each(f, func(decision) { told++ })
	body = make([]byte, 0, 64+160*(len(deleted)+told))
	body = append(body, `{"deleted":`...)
	body = appendList(body, deleted, now)
	body = append(body, `,"new":[`...)
	told = 0
	in := make(map[string]bool, len(deleted))
	for _, d := range deleted {
		in[d.value()] = true
	}
	s.each(f, func(d decision) {
		// One that began since the deleted were looked at is told with the next.
		if len(in) > 0 && in[d.value()] {
			return
		}
		if told++; told > 1 {
			body = append(body, ',')
		}
		body = d.append(body, now)
	})
	return append(body, `]}`...), told
}

// changes gives the state now of each target that events name, so that a value
// is in one list only.
func (s *Server) changes(f *filter, events []recent.Event, now time.Time) (fresh, deleted []decision) {
	seen := make(map[ban.Target]bool, len(events))
	for _, e := range slices.Backward(events) {
		if e.Target.IsZero() || seen[e.Target] || !f.topic(e.Topic) {
			continue // of other topics: the state in ours is as it was
		}
		seen[e.Target] = true
		in := slices.DeleteFunc(s.o.Table.Of(e.Target), func(x export.Entry) bool { return s.o.Observed(x.Topic) })
		if d, ok := f.strongest(in, s.origin); ok {
			fresh = append(fresh, d)
			continue
		}
		deleted = append(deleted, s.ended(f, e, now)...)
	}
	return fresh, deleted
}

// ended gives the deletions of a ban for each origin under which it may have
// been told.
func (s *Server) ended(f *filter, e recent.Event, now time.Time) []decision {
	origins := []string{OriginHere, OriginNetwork}
	if s.o.Operator != nil {
		origins = s.origins.all()
	}
	return slices.DeleteFunc(ended(e, origins, now), func(d decision) bool {
		single := d.prefix.IsSingleIP()
		return single && !f.ip || !single && !f.wide || len(f.origins) > 0 && !slices.Contains(f.origins, d.origin)
	})
}

// place gives where a client left off, how far back its changes are repeated (0
// for everything), and whether it understands no ranges.
func (s *Server) place(id identity, userAgent string, b credentials.Bouncer) (after uint64, window time.Duration, flat bool) {
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	now := s.o.Elapsed()
	c := s.clients.of(id, userAgent, b.Topics, now)
	if !c.started {
		return 0, 0, c.flat
	}
	pause := max(c.pause, now-c.pulled)
	for _, window := range windows {
		if 3*pause <= window {
			return c.seq, window, c.flat
		}
	}
	return 0, 0, c.flat
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
	c.pulled, c.pull = now, s.o.Now()
	if strings.HasSuffix(r.URL.Path, "/stream") {
		c.seq, c.started = newest, true
	}
	if whole {
		c.told = told
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

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return strconv.Quote("error")
	}
	return string(b)
}
