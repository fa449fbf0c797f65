// Package lapi answers CrowdSec's bouncers: the part of CrowdSec's local API
// that programs use which enforce bans, so that every one of them can enforce
// this node's. docs/compat/crowdsec-bouncers.md has the answers and the
// behaviours of clients that they respect.
package lapi

import (
	"cmp"
	"crypto/x509"
	"iter"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/recent"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
	"banmesh/internal/export"
)

// Options are the parts that a [Server] reads. Table, Keys and Log are required.
type Options struct {
	Table *export.Table
	Keys  *credentials.Keys
	Log   *slog.Logger
	Now   func() time.Time // nil means [time.Now]
	// Elapsed is the time of the process, which no change of the clock moves.
	Elapsed func() time.Duration
	// Recent is the log of the table's changes, which has to run; nil makes one.
	Recent *recent.Log
	// Observed says that a topic's bans are counted and not enforced: bouncers
	// get none of them.
	Observed func(ban.Topic) bool
	// Operator names the operator that is a ban's origin, made of letters,
	// digits, dash and underscore; nil makes two origins, here and network.
	Operator func(ban.Topic, ban.Target) string
	// Shared takes the traffic that was refused for operators whose name is no
	// origin; nil leaves it to nobody.
	Shared *usage.Attribution
	// Units are the organisational units whose client certificates are bouncers.
	Units []string
	// Proxies are the peers whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	// Held bounds the bytes of answers that are being sent; 0 means
	// [serving.DefaultHeld].
	Held int
}

// A Server answers bouncers.
type Server struct {
	o       Options
	recent  *recent.Log
	clients clients
	answers answers
	origins origins
	sender  serving.Sender
	guesses serving.Guesses
	// rendering bounds the answers of everything that are made at once, and turns has a
	// slot for each bouncer: one that asks for many keeps itself waiting.
	rendering chan struct{}
	turns     sync.Map // of chan struct{}, by name
	// metrics bounds the reports of traffic that are read at once.
	metrics chan struct{}
}

// New makes a server.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Elapsed == nil {
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) }
	}
	if o.Observed == nil {
		o.Observed = func(ban.Topic) bool { return false }
	}
	if o.Recent == nil {
		o.Recent = recent.New(o.Table, o.Now, o.Elapsed)
	}
	return &Server{
		o: o, recent: o.Recent, clients: clients{list: map[identity]*client{}},
		metrics: make(chan struct{}, 4), rendering: make(chan struct{}, 2), sender: serving.Sender{Held: o.Held},
		guesses: serving.Guesses{Log: o.Log, Of: "a bouncer without a valid key was refused", Elapsed: o.Elapsed},
	}
}

// Refused tells of those who have no valid key.
func (s *Server) Refused() serving.Refused { return s.guesses.Refused() }

// Clients lists those who asked since the start.
func (s *Server) Clients() []Status { return s.clients.status() }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, ok := map[string]map[string]func(http.ResponseWriter, *http.Request, identity, credentials.Bouncer){
		"/v1/decisions":        {http.MethodGet: s.decisions, http.MethodHead: s.alive},
		"/v1/decisions/stream": {http.MethodGet: s.stream, http.MethodHead: s.alive},
		"/v1/usage-metrics":    {http.MethodPost: s.usage},
		"/health":              {http.MethodGet: nil, http.MethodHead: nil},
	}[r.URL.Path]
	if !ok {
		serving.Fault(w, http.StatusNotFound, "page or resource not found")
		return
	}
	f, ok := answer[r.Method]
	switch {
	case !ok:
		serving.Fault(w, http.StatusMethodNotAllowed, "method not allowed")
	case f == nil:
		serving.Answer(w, http.StatusOK, map[string]string{"status": "up"})
	default:
		b, id, ok := s.admit(r)
		if !ok {
			// The peer's own address: a header that names another costs nothing.
			serving.Fault(w, s.guesses.Wrong(r.Context(), w, serving.AddrOf(r.RemoteAddr), http.StatusForbidden), "access forbidden")
			return
		}
		f(w, r, id, b)
	}
}

// admit finds out who asks: by key, or by a client certificate that the
// listener has verified.
func (s *Server) admit(r *http.Request) (credentials.Bouncer, identity, bool) {
	from := s.peer(r)
	if key := r.Header.Get("X-Api-Key"); key != "" {
		if b, ok := s.o.Keys.Of(key); ok {
			return b, identity{b.Name, from}, true
		}
		return credentials.Bouncer{}, identity{}, false
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if name, ok := s.certified(r.TLS.PeerCertificates[0]); ok {
			return credentials.Bouncer{Name: name}, identity{name, from}, true
		}
	}
	return credentials.Bouncer{}, identity{}, false
}

func (s *Server) certified(c *x509.Certificate) (name string, ok bool) {
	unit := func(u string) bool { return slices.Contains(s.o.Units, u) }
	return c.Subject.CommonName, credentials.PlainName(c.Subject.CommonName) && slices.ContainsFunc(c.Subject.OrganizationalUnit, unit)
}

// peer gives the client's address; the zero address for a unix socket. Behind a
// proxy that is believed it is the last address that is no such proxy.
func (s *Server) peer(r *http.Request) netip.Addr {
	from := serving.AddrOf(r.RemoteAddr)
	if !s.trusted(from) {
		return from
	}
	named := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(named) {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			break
		}
		if from = a.Unmap().WithZone(""); !s.trusted(from) {
			break
		}
	}
	return from
}

func (s *Server) trusted(a netip.Addr) bool {
	return slices.ContainsFunc(s.o.Proxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// alive answers whether a key is valid, and moves nothing.
func (s *Server) alive(w http.ResponseWriter, _ *http.Request, _ identity, _ credentials.Bouncer) {
	w.WriteHeader(http.StatusOK)
}

// decisions answers a bouncer that asks about one address at a time, or for a
// list. Nothing is the word null, without a line feed: nginx's bouncer reads
// anything else as a fault and refuses every visitor.
func (s *Server) decisions(w http.ResponseWriter, r *http.Request, id identity, b credentials.Bouncer) {
	f, p, err := readQuery(r.URL.Query(), b.Topics)
	if err != nil {
		serving.Fault(w, http.StatusBadRequest, err.Error())
		return
	}
	find := s.listed
	if p.around.IsValid() && !p.inside {
		find = s.covering
	}
	over := s.turn(b.Name)
	found := p.cut(find(&f, p))
	over()
	body := []byte("null")
	if len(found) > 0 {
		body = appendList(make([]byte, 0, 160*len(found)), slices.Values(found), s.o.Now())
	}
	s.pulled(id, r, b, s.recent.Newest(), false, len(found))
	s.send(w, r, body)
}

// turn waits until the bouncer's other requests are answered, and begins one.
func (s *Server) turn(name string) (over func()) {
	slot, _ := s.turns.LoadOrStore(name, make(chan struct{}, 1))
	slot.(chan struct{}) <- struct{}{}
	return func() { <-slot.(chan struct{}) }
}

// covering gives the decisions about an address or range, the longest first.
func (s *Server) covering(f *filter, p page) (found []decision) {
	target, err := ban.TargetOfPrefix(p.around)
	if err != nil {
		return nil // no ban can be of such a prefix, nor around it
	}
	by := map[ban.Target][]export.Entry{}
	for _, e := range s.o.Table.Check(target) {
		by[e.Target] = append(by[e.Target], e)
	}
	for _, entries := range by {
		if d, ok := s.strongest(f, entries); ok {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b decision) int {
		return cmp.Or(b.until.Compare(a.until), cmp.Compare(a.value(), b.value()))
	})
	return found
}

// listed gives every decision that the filter lets through, in order of ids where a part
// is asked for.
func (s *Server) listed(f *filter, p page) (found []decision) {
	s.rendering <- struct{}{}
	defer func() { <-s.rendering }()
	for d := range s.all(f) {
		if d.id() > p.idGreater && (!p.around.IsValid() || p.around.Bits() <= d.prefix.Bits() && p.around.Contains(d.prefix.Addr())) {
			found = append(found, d)
		}
	}
	if p.idGreater > 0 || p.limit > 0 || p.offset > 0 {
		slices.SortFunc(found, func(a, b decision) int { return cmp.Compare(a.id(), b.id()) })
	}
	return found
}

// all gives one decision for each banned address or range.
func (s *Server) all(f *filter) iter.Seq[decision] {
	return func(yield func(decision) bool) {
		for entries := range recent.ByTarget(s.o.Table) {
			if d, ok := s.strongest(f, entries); ok && !yield(d) {
				return
			}
		}
	}
}

// strongest gives, of one target's bans, the one that is told: the longest that
// the filter lets through. ok is false when there is none.
func (s *Server) strongest(f *filter, entries []export.Entry) (d decision, ok bool) {
	for _, e := range entries {
		if !f.topic(e.Topic) || ok && !e.Until.After(d.until) || s.o.Observed(e.Topic) {
			continue
		}
		p, isIP := e.Target.Prefix()
		if !isIP || p.Addr().IsLoopback() || p.Addr().IsUnspecified() {
			continue
		}
		if x := (decision{prefix: p, topic: e.Topic, class: e.Class, until: e.Until, origin: s.origin(e)}); f.wants(x) {
			d, ok = x, true
		}
	}
	return d, ok
}

func (s *Server) origin(e export.Entry) string {
	switch {
	case s.o.Operator != nil:
		return s.origins.of(s.o.Operator(e.Topic, e.Target))
	case e.Here:
		return OriginHere
	}
	return OriginNetwork
}

// send writes a long answer to a reader that may be slow.
func (s *Server) send(w http.ResponseWriter, r *http.Request, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	if err := s.sender.Send(w, b); err != nil {
		s.o.Log.Debug("an answer was not read to its end", slog.String("peer", r.RemoteAddr), slog.Any("error", err))
	}
}
