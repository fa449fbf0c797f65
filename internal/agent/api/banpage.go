package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/ledger"
)

// defaultBanPage is a screenful of bans or two.
const defaultBanPage = 100

// banPage gives some of the bans in force, searched and sorted here so that a
// reader of a long list is sent a part of it.
func (s *Server) banPage(r *http.Request) (any, error) {
	q := r.URL.Query()
	f, err := s.banFilter(q.Get("topic"), q.Get("origin"))
	if err != nil {
		return nil, err
	}
	order, ok := banOrders[q.Get("sort")]
	if !ok {
		return nil, control.Refuse(control.CodeBad, "", "sort: %.64q is none of ends, -ends, target and topic", q.Get("sort"))
	}
	limit, err := number(q.Get("limit"), defaultBanPage, 1, control.MaxBanPage)
	if err != nil {
		return nil, control.Refuse(control.CodeBad, "", "limit: %v", err)
	}
	offset, err := number(q.Get("offset"), 0, 0, 1<<30)
	if err != nil {
		return nil, control.Refuse(control.CodeBad, "", "offset: %v", err)
	}
	matches := searchOf(q.Get("search"))
	var found []ledger.Standing
	for x := range s.o.Ledger.Bans(f) {
		if matches(x.Target) {
			found = append(found, x)
		}
	}
	if _, ok := s.o.Settings().Find(f.Topic); len(found) == 0 && f.Topic != "" && !ok {
		return nil, noTopic(f.Topic)
	}
	if order != nil {
		slices.SortStableFunc(found, order)
	}
	page := control.BanPage{Bans: []control.Ban{}, Total: s.o.Ledger.Stats().Banned, Matching: len(found), Offset: min(offset, len(found))}
	for _, x := range found[page.Offset:min(page.Offset+limit, len(found))] {
		page.Bans = append(page.Bans, banOf(x, s.o.Settings().NameOf))
	}
	return page, nil
}

// banOrders are the orders of a [control.BanPage]; nil is that of the ledger, by
// topic and target.
var banOrders = map[string]func(a, b ledger.Standing) int{
	"": byEnd, "ends": byEnd, "topic": nil,
	"-ends":  func(a, b ledger.Standing) int { return byEnd(b, a) },
	"target": func(a, b ledger.Standing) int { return a.Target.Compare(b.Target) },
}

func byEnd(a, b ledger.Standing) int { return a.Until.Compare(b.Until) }

// number reads a parameter; "" is the default.
func number(text string, usual, least, most int) (int, error) {
	if text == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, control.Refuse(control.CodeBad, "", "%.64q is not within %d and %d", text, least, most)
	}
	return n, nil
}

// searchOf gives whether a target is meant by a search: one that overlaps an
// address or a prefix, or whose text has the search in it.
func searchOf(text string) func(ban.Target) bool {
	text = strings.ToLower(strings.TrimSpace(text))
	if text == "" {
		return func(ban.Target) bool { return true }
	}
	var wanted netip.Prefix
	if t, err := ban.ParseTarget(text); err == nil {
		if p, ip := t.Prefix(); ip {
			wanted = p
		} else {
			return func(x ban.Target) bool { return x == t }
		}
	}
	return func(x ban.Target) bool {
		if wanted.IsValid() {
			p, ip := x.Prefix()
			return ip && p.Overlaps(wanted)
		}
		return strings.Contains(strings.ToLower(x.String()), text)
	}
}

// banFilter reads the parameters that choose bans by topic and origin.
func (s *Server) banFilter(topic, origin string) (f ledger.Filter, err error) {
	if topic != "" {
		if f.Topic, err = ban.ParseTopic(topic); err != nil {
			return f, control.Refuse(control.CodeBad, "", "%v", err)
		}
	}
	switch {
	case origin == Here:
		f.Own = true
	case origin != "":
		f.Operator, err = s.operator(origin)
	}
	return f, err
}

// openPage makes a link that signs a browser in.
func (s *Server) openPage(*http.Request) (any, error) {
	if s.o.Page == nil {
		return nil, noPage()
	}
	return s.o.Page.Open()
}

// closePage ends every session.
func (s *Server) closePage(*http.Request) (any, error) {
	if s.o.Page == nil {
		return nil, noPage()
	}
	return s.o.Page.Close(), nil
}

// noPage says how to have a page.
func noPage() error {
	return control.Refuse(control.CodeMissing, "add `[page]` with `listen = \"127.0.0.1:7938\"` to agent.toml and restart the agent", "this node has no page")
}

// Page is the page for browsers.
type Page interface {
	// Open makes a link that signs one browser in, once.
	Open() (control.PageLink, error)
	// Close ends every session and every link.
	Close() control.PageClosed
	// URL is its address for browsers.
	URL() string
}

func (s *Server) pageURL() string {
	if s.o.Page == nil {
		return ""
	}
	return s.o.Page.URL()
}
