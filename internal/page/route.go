package page

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"banmesh/internal/control"
)

// A part is one entry of the menu and the path of its page.
type part struct{ Path, Name string }

// parts are the menu, in its order.
var parts = []part{
	{"/", "Overview"},
	{"/bans", "Bans"},
	{"/explain", "Explain"},
	{"/history", "History"},
	{"/peers", "Peers"},
	{"/holds", "Holds"},
	{"/topics", "Topics"},
	{"/sources", "Sources"},
	{"/filters", "Filter workshop"},
	{"/rules", "Try the rules"},
	{"/denylists", "Denylists"},
	{"/invite", "Invite"},
	{"/nodes", "Nodes"},
}

// routes are the pages and the forms on them. A page is made by a function that
// gives the data of its template; a form is done by one that gives the notice for
// the next page.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	busy := make(chan struct{}, maxBusy)
	handle := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			select {
			case busy <- struct{}{}:
				defer func() { <-busy }()
			default:
				w.Header().Set("Retry-After", "2")
				s.refuse(w, r, http.StatusServiceUnavailable, "The page answers many requests just now.", "Try again in a moment.")
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
			defer cancel()
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerWithin)) // a test's recorder has none
			h(w, r.WithContext(ctx))
		})
	}
	for path, show := range map[string]func(*http.Request) (view, error){
		"/{$}": s.overview, "/bans": s.bans, "/explain": s.explain, "/history": s.history, "/peers": s.peers, "/holds": s.holds,
		"/topics": s.topics, "/sources": s.sources, "/filters": s.filters, "/rules": s.rules, "/denylists": s.denylists,
		"/invite": s.invite, "/nodes": s.nodes,
	} {
		handle("GET "+path, s.page(show))
	}
	for path, do := range map[string]func(*http.Request) (notice, error){
		"/bans/ban": s.ban, "/bans/unban": s.unban, "/bans/allow": s.allow, "/bans/allow/remove": s.allowRemove,
		"/peers/undo": s.undo, "/peers/release": s.release, "/holds/approve": s.approve, "/holds/reject": s.reject, "/topics/switch": s.setSwitch,
	} {
		handle("POST "+path, s.form(do))
	}
	handle("POST /filters", s.page(s.tryFilter))
	handle("POST /invite", s.page(s.makeInvite))
	handle("POST /sign-out", s.signOut)
	handle("GET /static/{name}", serveStatic)
	mux.HandleFunc("GET "+livePath, s.live)
	handle("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, http.StatusNotFound, "There is no such page.", "The menu has all that there are.")
	})
	return mux
}

// page answers with a page.
func (s *Server) page(show func(*http.Request) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := show(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.render(w, r, http.StatusOK, v)
	}
}

// form carries a form out and leads back to the page that it was on,
// which tells the result: a page that is loaded again repeats nothing.
func (s *Server) form(do func(*http.Request) (notice, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := do(r)
		refused, ok := errors.AsType[*control.RefusedError](err)
		if ok && refused.Code == control.CodeAsk {
			s.ask(w, r, refused.Text)
			return
		}
		if err != nil {
			n = notice{Text: err.Error()}
			if ok {
				n.Hint = refused.Hint
			}
		}
		sessionOf(r.Context()).tell(n)
		http.Redirect(w, r, back(r), http.StatusSeeOther)
	}
}

// back gives the page that a form was on: a path of ours and nothing else.
func back(r *http.Request) string {
	u, err := url.Parse(r.PostFormValue("back"))
	if err != nil || u.IsAbs() || u.Host != "" || u.Opaque != "" {
		return "/"
	}
	for _, p := range parts {
		if u.Path == p.Path {
			return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
		}
	}
	return "/"
}

// A question asks whether to do a form that changes much.
type question struct {
	Text   string
	Path   string
	Back   string
	Fields map[string][]string
}

// ask shows a form again, with a button that does it.
func (s *Server) ask(w http.ResponseWriter, r *http.Request, text string) {
	fields := url.Values{}
	for k, v := range r.PostForm {
		if k != "form" && k != "yes" {
			fields[k] = v
		}
	}
	s.render(w, r, http.StatusConflict, view{Title: "Sure?", Template: "confirm", Data: question{Text: text, Path: r.URL.Path, Back: back(r), Fields: fields}})
}

// fail tells why a page cannot be shown.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, hint := http.StatusInternalServerError, ""
	if refused, ok := errors.AsType[*control.RefusedError](err); ok {
		hint = refused.Hint
		switch refused.Code {
		case control.CodeBad:
			status = http.StatusBadRequest
		case control.CodeMissing:
			status = http.StatusNotFound
		case control.CodeRefused, control.CodeAsk:
			status = http.StatusConflict
		}
	}
	s.refuse(w, r, status, err.Error(), hint)
}

// refuse shows a page that says why there is no other.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, text, hint string) {
	if sessionOf(r.Context()) == nil {
		bare(w, status, bareView{Title: http.StatusText(status), Text: text + " " + hint})
		return
	}
	s.render(w, r, status, view{Title: http.StatusText(status), Template: "refused", Data: notice{Text: text, Hint: hint}})
}
