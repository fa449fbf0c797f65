package api

import (
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/settings"
)

// public serves the requests over TCP.
type public struct {
	mu     sync.Mutex
	listen string
	lists  *export.Handler // nil while nothing is served
}

// Public answers over TCP, where [http] says so: checks, lists and metrics, to
// those who may read them.
func (s *Server) Public() (http.Handler, error) {
	lists, err := s.lists()
	if err != nil {
		return nil, err
	}
	access, err := s.access()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	lists.Register(mux)
	mux.Handle("GET /metrics", s.metrics())
	s.public.mu.Lock()
	s.public.lists = lists
	s.public.mu.Unlock()
	return access.Only(mux), nil
}

// Listening takes note of the address on which [Server.Public] is served.
func (s *Server) Listening(at string) {
	s.public.mu.Lock()
	defer s.public.mu.Unlock()
	s.public.listen = at
}

// lists answers programs that ask who is banned.
func (s *Server) lists() (*export.Handler, error) {
	c := s.o.Settings().Config()
	o := export.Options{
		Bans: s.o.Table, Offences: reports{s}, Log: s.o.Log, ClientHeader: c.HTTP.ClientHeader, Now: s.o.Now,
		Appeal: c.HTTP.Appeal, References: s.o.References, Identity: s.o.Sharing.Operator().String(), Times: s.timesOf,
	}
	for _, p := range c.HTTP.TrustedProxies {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return nil, c.At("http.trusted_proxies", "%v", err)
		}
		o.TrustedProxies = append(o.TrustedProxies, prefix)
	}
	h, err := export.New(o)
	if err != nil {
		return nil, c.At("http", "%v", err)
	}
	return h, nil
}

// reference finds the ban in force of which a visitor gave the reference.
func (s *Server) reference(r *http.Request) (any, error) {
	text := r.URL.Query().Get("reference")
	reference, ok := export.ParseReference(text)
	if !ok {
		return nil, control.Refuse(control.CodeBad, "ten letters and digits, such as 7ZK3M-0QX9V", "%.32q is no reference", text)
	}
	target, topic, ok := s.o.References.Find(reference, s.o.Table)
	if !ok {
		return nil, control.Refuse(control.CodeMissing, "the ban may have ended: `agent history` has the visitor's address, if they tell it", "no ban in force has the reference %s", reference)
	}
	return control.Referenced{Target: target, Topic: topic}, nil
}

// timesOf says when a ban in force began, and when its newest claim came.
func (s *Server) timesOf(topic ban.Topic, target ban.Target) (began, renewed time.Time) {
	x, ok := s.o.Ledger.Standing(topic, target)
	if !ok {
		return began, renewed
	}
	for _, c := range x.Claims {
		if c.Since.After(renewed) {
			renewed = c.Since
		}
	}
	return x.Since, renewed
}

// access reads who may read over TCP.
func (s *Server) access() (a export.Access, err error) {
	c := s.o.Settings().Config()
	for _, text := range c.HTTP.Allow {
		p, err := settings.ParseNetwork(text)
		if err != nil {
			return a, c.At("http.allow", "%v", err)
		}
		a.Networks = append(a.Networks, p)
	}
	if c.HTTP.TokenFile == "" {
		return a, nil
	}
	b, err := os.ReadFile(c.HTTP.TokenFile)
	if err != nil {
		return a, c.At("http.token_file", "%v", err)
	}
	if a.Token = strings.TrimSpace(string(b)); len(a.Token) < export.MinToken {
		return a, c.At("http.token_file", "%s has a token of fewer than %d characters; make one with openssl rand -hex 24", c.HTTP.TokenFile, export.MinToken)
	}
	return a, nil
}

// compatLists describes the lists that are served over TCP.
func (s *Server) compatLists() (list []control.Compat) {
	s.public.mu.Lock()
	at, lists := s.public.listen, s.public.lists
	s.public.mu.Unlock()
	if at == "" || lists == nil {
		return nil
	}
	return []control.Compat{{Protocol: "lists", Listen: at, Clients: each(lists.Readers(), func(r export.Reader) control.CompatClient {
		c := control.CompatClient{Name: r.Format, Last: r.Last, Told: r.Listed}
		if r.From.IsValid() {
			c.From = r.From.String()
		}
		return c
	})}}
}
