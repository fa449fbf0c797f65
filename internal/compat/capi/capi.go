// Package capi answers CrowdSec itself: the part of its central API that an
// installation uses, so that it gets this node's bans and tells its own, and
// nothing goes to anybody else. docs/compat/crowdsec.md has the answers.
//
// Version 1.4 asks below /v2, 1.6 and 1.7 below /v3.
package capi

import (
	"context"
	"encoding/json"
	"io"
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

// Options are the inputs of [New]. Table, Machines, Take and Log are required.
type Options struct {
	Table    *export.Table
	Machines *credentials.Machines
	// Take records signals, each as a ban of the source crowdsec.
	Take func(context.Context, []Signal) error
	// Scenarios are the operator's topics for scenarios, "" for none.
	Scenarios map[string]ban.Topic
	// Observed says that a topic's bans are counted and not enforced.
	Observed func(ban.Topic) bool
	// NeverBan lists targets that must stay reachable.
	NeverBan func() []netip.Prefix
	// Shared takes the traffic that an installation's bouncers refused by our
	// bans; nil leaves it to nobody.
	Shared *usage.Attribution
	// Recent is the log of the table's changes, which has to run; nil makes one.
	Recent *recent.Log
	Log    *slog.Logger
	Now    func() time.Time // nil means [time.Now]
}

// A Server answers CrowdSec installations.
type Server struct {
	o Options

	sender   serving.Sender
	guesses  serving.Guesses
	editions editions

	mu      sync.Mutex
	clients map[string]*client // by login
}

// Status describes a client for people.
type Status struct {
	Login, From, Agent string
	Last               time.Time
	Told               int           // bans of the last whole answer
	Signals, Ignored   uint64        // taken as bans, and left out
	Dropped            usage.Dropped // by its bouncers, for our bans
}

// client is an installation that asked since the start.
type client struct {
	Status
	seq    uint64 // of the newest change that it was told
	pulled bool
}

// New makes a server.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observed == nil {
		o.Observed = func(ban.Topic) bool { return false }
	}
	if o.NeverBan == nil {
		o.NeverBan = func() []netip.Prefix { return nil }
	}
	if o.Recent == nil {
		o.Recent = recent.New(o.Table, o.Now, nil)
	}
	return &Server{
		o: o, clients: map[string]*client{},
		guesses: serving.Guesses{Log: o.Log, Of: "a CrowdSec without valid credentials was refused"},
	}
}

// Clients lists who asked since the start, by login.
func (s *Server) Clients() (list []Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		list = append(list, c.Status)
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Login, b.Login) })
	return list
}

// Refused tells of those who have no valid credentials.
func (s *Server) Refused() serving.Refused { return s.guesses.Refused() }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	version, path, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if !ok || version != "v2" && version != "v3" {
		serving.Fault(w, http.StatusNotFound, "page or resource not found")
		return
	}
	path = strings.TrimSuffix(path, "/")
	if rest, ok := strings.CutPrefix(path, "lists/"); ok && r.Method == http.MethodGet {
		s.list(w, r, rest)
		return
	}
	if path == "watchers/login" || path == "watchers" {
		s.login(w, r)
		return
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	login, ok := s.o.Machines.Holder(token, s.o.Now())
	switch {
	case !ok:
		serving.Fault(w, s.wrong(w, r, http.StatusUnauthorized), "token is expired or unknown")
	case path == "decisions/stream" && r.Method == http.MethodGet:
		s.stream(w, r, login, version)
	case path == "signals" && r.Method == http.MethodPost:
		s.signals(w, r, login)
	case path == "usage-metrics" && r.Method == http.MethodPost:
		s.usage(w, r, login)
	default:
		// Other metrics, heartbeats, deletions, enrolment: accepted, and not read.
		s.asked(r, login, func(*client) {})
		done(w)
	}
}

// asked notes a request of an installation.
func (s *Server) asked(r *http.Request, login string, f func(*client)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clients[login]
	if !ok {
		c = &client{Status: Status{Login: login}}
		s.clients[login] = c
	}
	c.Last, c.From, c.Agent = s.o.Now(), r.RemoteAddr, serving.Plain(r.UserAgent())
	f(c)
}

// wrong notes wrong credentials and gives the status of the answer.
func (s *Server) wrong(w http.ResponseWriter, r *http.Request, status int) int {
	return s.guesses.Wrong(r.Context(), w, serving.AddrOf(r.RemoteAddr), status)
}

// login gives a token for a password. A machine that registers itself is let in
// no other way.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var q struct {
		ID       string `json:"machine_id"`
		Password string `json:"password"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&q); err != nil {
		serving.Fault(w, http.StatusBadRequest, "the credentials cannot be read")
		return
	}
	if !s.o.Machines.Login(q.ID, q.Password) {
		serving.Fault(w, s.wrong(w, r, http.StatusForbidden), "the machine id or password is incorrect: agent crowdsec join")
		return
	}
	until := s.o.Now().Add(credentials.TokenLasts)
	token, err := s.o.Machines.Token(q.ID, until)
	if err != nil {
		serving.Fault(w, http.StatusInternalServerError, "no token could be made")
		return
	}
	s.asked(r, q.ID, func(*client) {})
	serving.Answer(w, http.StatusOK, map[string]any{"code": http.StatusOK, "expire": until.UTC().Format(time.RFC3339), "token": token})
}

// decision is a ban as version 1.4 reads it.
type decision struct {
	Duration string `json:"duration"`
	Origin   string `json:"origin"`
	Scenario string `json:"scenario"`
	Scope    string `json:"scope"`
	Type     string `json:"type"`
	Value    string `json:"value"`
}

// stream answers a pull: everything at first, then the changes.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, login, version string) {
	q := r.URL.Query()
	s.mu.Lock()
	c := s.clients[login]
	whole, seq := q.Get("startup") == "true" || c == nil || !c.pulled, uint64(0)
	if !whole {
		seq = c.seq
	}
	s.mu.Unlock()
	newest := s.o.Recent.Newest()
	var events []recent.Event
	if !whole {
		events, newest, whole = s.o.Recent.Since(seq, 0)
	}
	fresh, deleted := []decision{}, []decision{}
	if whole {
		fresh = s.all()
		events = s.o.Recent.Gone()
	}
	seen := map[ban.Target]bool{}
	for _, e := range events {
		if e.Target.IsZero() || seen[e.Target] {
			continue
		}
		seen[e.Target] = true
		x, banned := s.longest(s.o.Table.Of(e.Target))
		if !banned {
			x = export.Entry{Target: e.Target}
		}
		switch d, ok := s.decisionOf(x); {
		case ok && !banned:
			deleted = append(deleted, d)
		case ok && !whole:
			fresh = append(fresh, d)
		}
	}
	if q.Get("community_pull") == "false" {
		fresh = []decision{}
	}
	s.asked(r, login, func(c *client) {
		c.seq, c.pulled = newest, true
		if whole {
			c.Told = len(fresh)
		}
	})
	if version == "v2" {
		s.send(w, map[string]any{"new": fresh, "deleted": deleted})
		return
	}
	s.send(w, s.v3(fresh, deleted, r, login, q.Get("additional_pull") != "false"))
}

// send sends an answer that may be long.
func (s *Server) send(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		serving.Fault(w, http.StatusInternalServerError, "the answer could not be made")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = s.sender.Send(w, b) // the client went away: there is nobody to tell
}

// all gives a decision for each target in force, the longest of its topics.
func (s *Server) all() []decision {
	list := []decision{}
	for entries := range recent.ByTarget(s.o.Table) {
		if e, ok := s.longest(entries); ok {
			if d, ok := s.decisionOf(e); ok {
				list = append(list, d)
			}
		}
	}
	slices.SortFunc(list, func(a, b decision) int { return strings.Compare(a.Value, b.Value) })
	return list
}

// longest gives, of one target's bans, the last to end of those that are enforced.
func (s *Server) longest(entries []export.Entry) (e export.Entry, ok bool) {
	for _, x := range entries {
		if !s.o.Observed(x.Topic) && x.Until.After(e.Until) {
			e, ok = x, true
		}
	}
	return e, ok
}

func (s *Server) decisionOf(e export.Entry) (decision, bool) {
	p, ok := e.Target.Prefix()
	if !ok || !tellable(p) {
		return decision{}, false
	}
	rest := max(e.Until.Sub(s.o.Now()).Round(time.Second), time.Second)
	// The deleted are compared exactly: Range has a capital.
	d := decision{Duration: rest.String(), Origin: "CAPI", Scenario: "banmesh/" + string(e.Topic), Scope: "Ip", Type: "ban", Value: e.Target.String()}
	if !p.IsSingleIP() {
		d.Scope = "Range"
	}
	return d, true
}

func done(w http.ResponseWriter) {
	serving.Answer(w, http.StatusOK, map[string]string{"message": "OK"})
}
