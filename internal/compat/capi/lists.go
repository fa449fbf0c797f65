package capi

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
	"banmesh/internal/export"
)

const (
	listPrefix  = "banmesh-"        // of a topic's list of addresses
	rangePrefix = "banmesh_ranges-" // of a topic's list of ranges
	neverBan    = "never-ban"       // the allowlist
	// created is when every entry of the allowlist says that it was made: a date
	// that moved would make every fetch a new edition.
	created = "2026-11-28T00:00:00Z"
)

// v3 makes the answer of newer versions: values by scenario and scope, and links
// to lists, which are fetched without credentials.
func (s *Server) v3(fresh, deleted []decision, r *http.Request, login string, links bool) any {
	type value struct {
		Value    string `json:"value"`
		Duration string `json:"duration"`
	}
	type group struct {
		Scenario  string `json:"scenario,omitempty"`
		Scope     string `json:"scope"`
		Decisions []any  `json:"decisions"`
	}
	groups := func(list []decision, of func(decision) any) []group {
		slices.SortStableFunc(list, func(a, b decision) int {
			return cmp.Or(strings.Compare(a.Scenario, b.Scenario), strings.Compare(a.Scope, b.Scope))
		})
		out := []group{}
		for _, d := range list {
			if n := len(out); n == 0 || out[n-1].Scenario != d.Scenario || out[n-1].Scope != d.Scope {
				out = append(out, group{Scenario: d.Scenario, Scope: d.Scope})
			}
			out[len(out)-1].Decisions = append(out[len(out)-1].Decisions, of(d))
		}
		return out
	}
	for i := range deleted {
		deleted[i].Scenario = ""
	}
	out := map[string]any{
		"new":     groups(fresh, func(d decision) any { return value{d.Value, d.Duration} }),
		"deleted": groups(deleted, func(d decision) any { return d.Value }),
	}
	if links {
		out["links"] = s.links(r, login)
	}
	return out
}

// listLasts is the told duration of a list's values: longer than the two hours
// until it is fetched again, and no longer than need be, because a ban that
// ends meanwhile goes on for the rest of it.
const listLasts = "2h30m"

func (s *Server) links(r *http.Request, login string) any {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	url := func(name string) string {
		return fmt.Sprintf("%s://%s/v3/lists/%s/%s/%s", scheme, r.Host, login, s.o.Machines.Sign("list "+login+" "+name), name)
	}
	scopes := map[string]string{}
	for name, e := range s.listed() {
		p, _ := e.Target.Prefix()
		if scopes[name] = "ip"; !p.IsSingleIP() {
			scopes[name] = "range"
		}
	}
	blocklists := []map[string]string{}
	for name, scope := range scopes {
		blocklists = append(blocklists, map[string]string{"name": name, "url": url(name), "remediation": "ban", "scope": scope, "duration": listLasts})
	}
	slices.SortFunc(blocklists, func(a, b map[string]string) int { return strings.Compare(a["name"], b["name"]) })
	now := s.o.Now().UTC().Format(time.RFC3339)
	return map[string]any{"blocklists": blocklists, "allowlists": []map[string]string{{
		"name": "banmesh-never-ban", "description": "addresses that Banmesh never bans here", "id": "banmesh-never-ban", "url": url(neverBan),
		"created_at": now, "updated_at": now,
	}}}
}

// list answers LOGIN/SIGNATURE/NAME: a topic's bans, one a line and nothing
// else, because every line becomes a decision; or the never-ban list. CrowdSec
// asks with If-Modified-Since the time when it fetched the list last.
func (s *Server) list(w http.ResponseWriter, r *http.Request, path string) {
	parts := strings.Split(path, "/")
	if len(parts) != 3 || !s.o.Machines.Knows(parts[0]) || !hmac.Equal([]byte(s.o.Machines.Sign("list "+parts[0]+" "+parts[2])), []byte(parts[1])) {
		serving.Fault(w, s.wrong(w, r, http.StatusNotFound), "page or resource not found")
		return
	}
	body := s.bansOf(parts[2])
	if parts[2] == neverBan {
		body = s.neverBan()
	}
	now := s.o.Now()
	etag, changed := s.editions.of(parts[2], body, now)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("ETag", etag)
	if !changed.After(now) {
		w.Header().Set("Last-Modified", changed.Format(http.TimeFormat))
	}
	if unchanged(r, etag, changed) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_ = s.sender.Send(w, body) // the client went away: there is nobody to tell
}

// listed gives the bans that lists have, each with the name of its list. Every line of a
// list becomes a decision of the list's one scope, so ranges are apart: bouncers of CrowdSec
// read no range in the scope of addresses.
func (s *Server) listed() iter.Seq2[string, export.Entry] {
	return func(yield func(string, export.Entry) bool) {
		_, entries := s.o.Table.Snapshot()
		for e := range entries {
			p, ok := e.Target.Prefix()
			if !ok || !tellable(p) || s.o.Observed(e.Topic) {
				continue
			}
			name := listPrefix + string(e.Topic)
			if !p.IsSingleIP() {
				name = rangePrefix + string(e.Topic)
			}
			if !yield(name, e) {
				return
			}
		}
	}
}

// bansOf lists the bans of a list, a line each, sorted.
func (s *Server) bansOf(name string) []byte {
	var lines []string
	for of, e := range s.listed() {
		if of == name {
			lines = append(lines, e.Target.String()+"\n")
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// neverBan lists the never-ban entries, a JSON object a line.
func (s *Server) neverBan() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, p := range s.o.NeverBan() {
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		_ = e.Encode(map[string]string{"value": text, "description": "Banmesh never-ban", "created_at": created}) // strings in memory
	}
	return b.Bytes()
}

// editions remember when each list came to be as it is.
type editions struct {
	mu   sync.Mutex
	list map[string]edition
}

type edition struct {
	etag    string
	changed time.Time
}

// of gives a list's tag, and the whole second after it came to be as it is: one
// that changes within the second in which it was fetched is fetched again.
func (e *editions) of(name string, body []byte, now time.Time) (etag string, changed time.Time) {
	sum := sha256.Sum256(body)
	etag = `"` + hex.EncodeToString(sum[:16]) + `"`
	e.mu.Lock()
	defer e.mu.Unlock()
	x, ok := e.list[name]
	if ok && x.etag == etag {
		return etag, x.changed
	}
	if e.list == nil {
		e.list = map[string]edition{}
	}
	x = edition{etag, now.UTC().Truncate(time.Second).Add(time.Second)}
	e.list[name] = x
	return etag, x.changed
}

// unchanged says that a reader has the list already; a tag counts more than a
// time (RFC 9110, 13.2.2).
func unchanged(r *http.Request, etag string, changed time.Time) bool {
	if tags := r.Header.Get("If-None-Match"); tags != "" {
		return strings.Contains(tags, etag)
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	return err == nil && !changed.After(since)
}

// usage takes the traffic that an installation's bouncers refused: by the list
// that a decision came from, or by all that it was told. A report that cannot be
// read is accepted too: it would be sent again and again.
func (s *Server) usage(w http.ResponseWriter, r *http.Request, login string) {
	report, err := usage.Read(r)
	if err != nil {
		s.o.Log.Debug("a report of traffic cannot be read", slog.String("peer", r.RemoteAddr), slog.Any("error", err))
	}
	var all usage.Dropped
	for origin, d := range report.Dropped {
		list, of := strings.CutPrefix(origin, "lists:")
		topic := ban.Topic(strings.TrimPrefix(strings.TrimPrefix(list, listPrefix), rangePrefix))
		if of && string(topic) == list || !of && origin != "CAPI" {
			continue // its own decisions
		}
		all.Add(d)
		if s.o.Shared != nil {
			s.o.Shared.Add(d, func(b usage.Ban) bool { return !of || b.Topic == topic })
		}
	}
	s.asked(r, login, func(c *client) { c.Dropped.Add(all) })
	done(w)
}
