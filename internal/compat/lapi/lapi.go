// Package lapi answers CrowdSec's bouncers: the part of CrowdSec's local API
// that programs use which enforce bans, so that every one of them can enforce
// this node's. docs/compat/crowdsec-bouncers.md has the answers and the
// behaviours of clients that they respect.
package lapi

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
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
	// rendering bounds the answers of everything that are made at once.
	rendering chan struct{}
	// metrics bounds the reports of traffic that are read at once.
	metrics chan struct{}
}

// New makes a server; [Server.Follow] has to run.
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
	return &Server{
		o: o, recent: recent.New(o.Table, o.Now, o.Elapsed), clients: clients{list: map[identity]*client{}},
		metrics: make(chan struct{}, 4), rendering: make(chan struct{}, 2), sender: serving.Sender{Held: o.Held},
		guesses: serving.Guesses{Log: o.Log, Of: "a bouncer without a valid key was refused", Elapsed: o.Elapsed},
	}
}

// Recent is the log of changes that has to run.
func (s *Server) Recent() *recent.Log { return s.recent }

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
		fault(w, http.StatusNotFound, "page or resource not found")
		return
	}
	f, ok := answer[r.Method]
	switch {
	case !ok:
		fault(w, http.StatusMethodNotAllowed, "method not allowed")
	case f == nil:
		write(w, http.StatusOK, []byte(`{"status":"up"}`))
	default:
		b, id, ok := s.admit(r)
		if !ok {
			// The peer's own address: a header that names another costs nothing.
			fault(w, s.guesses.Wrong(r.Context(), w, serving.AddrOf(r.RemoteAddr), http.StatusForbidden), "access forbidden")
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
	f, p, err := readQuery(r.URL.Query(), s.topics(b))
	if err != nil {
		fault(w, http.StatusBadRequest, err.Error())
		return
	}
	now := s.o.Now()
	body, told := s.list(&f, p, now)
	s.pulled(id, r, b, s.recent.Newest(), false, told)
	s.send(w, r, body)
}

// list makes the answer of [Server.decisions].
func (s *Server) list(f *filter, p page, now time.Time) (body []byte, told int) {
	var found []decision
	if p.around.IsValid() && !p.inside {
		found = s.covering(f, p)
	} else {
		s.rendering <- struct{}{}
		defer func() { <-s.rendering }()
		found = s.listed(f, p)
	}
	if len(found) == 0 {
		return []byte("null"), 0
	}
	return appendList(make([]byte, 0, 160*len(found)), found, now), len(found)
}

// topics gives the topics that a bouncer is told of.
func (s *Server) topics(b credentials.Bouncer) []ban.Topic { return b.Topics }

// covering gives the decisions about an address or range, the longest first.
func (s *Server) covering(f *filter, p page) (found []decision) {
	target, err := ban.TargetOfPrefix(p.around)
	if err != nil {
		return nil // no ban can be of such a prefix, nor around it
	}
	by := map[ban.Target][]export.Entry{}
	for _, e := range s.o.Table.Check(target) {
		if !s.o.Observed(e.Topic) {
			by[e.Target] = append(by[e.Target], e)
		}
	}
	for _, entries := range by {
		if d, ok := f.strongest(entries, s.origin); ok {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, byEnd)
	return cut(found, p)
}

// listed gives every decision that the filter lets through, in order of ids.
func (s *Server) listed(f *filter, p page) []decision {
	found := s.all(f)
	if p.around.IsValid() {
		found = slices.DeleteFunc(found, func(d decision) bool {
			return !(p.around.Bits() <= d.prefix.Bits() && p.around.Contains(d.prefix.Addr()))
		})
	}
	if p.idGreater > 0 || p.limit > 0 || p.offset > 0 {
		found = slices.DeleteFunc(found, func(d decision) bool { return d.id() <= p.idGreater })
		slices.SortFunc(found, func(a, b decision) int { return int(min(max(a.id()-b.id(), -1), 1)) })
	}
	return cut(found, p)
}

func cut(list []decision, p page) []decision {
	list = list[min(p.offset, len(list)):]
	if p.limit > 0 {
		list = list[:min(p.limit, len(list))]
	}
	return list
}

// all gives one decision for each banned address or range.
func (s *Server) all(f *filter) (found []decision) {
	s.each(f, func(d decision) { found = append(found, d) })
	return found
}

// each calls do with one decision for each banned address or range.
func (s *Server) each(f *filter, do func(decision)) {
	_, entries := s.o.Table.Snapshot()
	var of []export.Entry // the bans of one target, which come together
	add := func() {
		if d, ok := f.strongest(of, s.origin); ok {
			do(d)
		}
		of = of[:0]
	}
	for e := range entries {
		if len(of) > 0 && of[0].Target != e.Target {
			add()
		}
		if !s.o.Observed(e.Topic) {
			of = append(of, e)
		}
	}
	add()
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

func write(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client went away: there is nobody to tell
}

func fault(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"message":`+quote(text)+`}`)
}
