package page

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/control"
)

// Limits of sessions.
const (
	// linkFor is how long a link signs somebody in: from a terminal to a browser.
	linkFor = 10 * time.Minute
	// maxLinks bounds the links that nobody used yet; the oldest makes room.
	maxLinks = 16
	// sessionFor is how long a session lasts, idleFor how long without a request.
	sessionFor = 12 * time.Hour
	idleFor    = 2 * time.Hour
	// maxSessions bounds the sessions; the longest unused one makes room.
	maxSessions = 32
)

// digest is stored in a secret's place: whoever reads this process's memory later
// gets no session by it.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// A session is one browser that is signed in.
type session struct {
	key   digest
	form  string // the token of its forms
	until time.Time
	ended chan struct{} // closed when it ends

	mu   sync.Mutex
	used time.Time
	note *notice // for the next page
}

// A notice tells the result of a form on the page that follows it.
type notice struct {
	Good  bool
	Text  string
	Lines []string
	Hint  string
}

// tell keeps a notice for the next page.
func (s *session) tell(n notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = &n
}

// told takes the notice.
func (s *session) told() *notice {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.note
	s.note = nil
	return n
}

// mayPost checks the token of a form.
func (s *session) mayPost(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.PostFormValue("form")), []byte(s.form)) == 1
}

// sessions are those of this process: a restart ends them all.
type sessions struct {
	now func() time.Time

	mu    sync.Mutex
	links []link // oldest first
	list  []*session
}

type link struct {
	key   digest
	until time.Time
}

func newSessions(now func() time.Time) *sessions { return &sessions{now: now} }

// link makes a token that begins one session.
func (s *sessions) link() (token string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	token, until = rand.Text(), s.now().Add(linkFor)
	s.expire()
	if len(s.links) == maxLinks {
		s.links = s.links[1:]
	}
	s.links = append(s.links, link{digestOf(token), until})
	return token, until
}

// expire forgets links and sessions that are over.
func (s *sessions) expire() {
	now := s.now()
	s.links = slices.DeleteFunc(s.links, func(l link) bool { return !l.until.After(now) })
	s.list = slices.DeleteFunc(s.list, func(x *session) bool {
		if x.until.After(now) && x.lastUsed().Add(idleFor).After(now) {
			return false
		}
		close(x.ended)
		return true
	})
}

func (s *session) lastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// begin uses a link up, and gives the secret of the session that it begins.
func (s *sessions) begin(token string) (secret string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	key := digestOf(token)
	i := slices.IndexFunc(s.links, func(l link) bool { return l.key == key })
	if i < 0 {
		return "", false
	}
	s.links = slices.Delete(s.links, i, i+1)
	if len(s.list) == maxSessions {
		oldest := slices.MinFunc(s.list, func(a, b *session) int { return cmp.Compare(a.lastUsed().UnixNano(), b.lastUsed().UnixNano()) })
		s.remove(oldest)
	}
	secret = rand.Text()
	now := s.now()
	s.list = append(s.list, &session{key: digestOf(secret), form: rand.Text(), until: now.Add(sessionFor), used: now, ended: make(chan struct{})})
	return secret, true
}

// waits says whether a link would begin a session.
func (s *sessions) waits(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	key := digestOf(token)
	return slices.ContainsFunc(s.links, func(l link) bool { return l.key == key })
}

func (s *sessions) remove(x *session) {
	if i := slices.Index(s.list, x); i >= 0 {
		close(x.ended)
		s.list = slices.Delete(s.list, i, i+1)
	}
}

// end ends one session.
func (s *sessions) end(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(x)
}

// close ends every session and every link.
func (s *sessions) close() control.PageClosed {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	closed := control.PageClosed{Sessions: len(s.list), Links: len(s.links)}
	for _, x := range s.list {
		close(x.ended)
	}
	s.links, s.list = nil, nil
	return closed
}

// of gives the session of a request.
func (s *sessions) of(r *http.Request, cookie string) (*session, bool) {
	c, err := r.Cookie(cookie)
	if err != nil {
		return nil, false
	}
	key := digestOf(c.Value)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	i := slices.IndexFunc(s.list, func(x *session) bool { return x.key == key })
	if i < 0 {
		return nil, false
	}
	x := s.list[i]
	if r.URL.Path != livePath { // a page that is left open is not somebody at it
		x.mu.Lock()
		x.used = s.now()
		x.mu.Unlock()
	}
	return x, true
}

type sessionKey struct{}

func withSession(ctx context.Context, s *session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

func sessionOf(ctx context.Context) *session {
	s, _ := ctx.Value(sessionKey{}).(*session)
	return s
}

// cookieName has the port, because browsers share cookies between the ports of
// a host: several nodes behind tunnels would sign each other out.
func (s *Server) cookieName() string {
	u, err := url.Parse(s.URL())
	switch {
	case err != nil:
		return "banmesh"
	case u.Scheme == "https":
		return "__Host-banmesh-" + cmp.Or(u.Port(), "443")
	}
	return "banmesh-" + cmp.Or(u.Port(), "80")
}

// signIn shows a button, and begins a session when it is pressed: who looks at
// links before people do, as messengers and mail filters, uses none up.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		token := r.URL.Query().Get("link")
		if !s.sessions.waits(token) {
			s.askToSignIn(w)
			return
		}
		bare(w, http.StatusOK, bareView{Title: "Sign in", Link: token})
	case http.MethodPost:
		secret, ok := s.sessions.begin(r.PostFormValue("link"))
		if !ok {
			s.askToSignIn(w)
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: s.cookieName(), Value: secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
			Secure: strings.HasPrefix(s.URL(), "https:"), MaxAge: int(sessionFor / time.Second),
		})
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "GET or POST", http.StatusMethodNotAllowed)
	}
}

// signOut signs the browser out.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	s.sessions.end(sessionOf(r.Context()))
	http.SetCookie(w, &http.Cookie{Name: s.cookieName(), Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(s.URL(), "https:")})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) askToSignIn(w http.ResponseWriter) {
	bare(w, http.StatusUnauthorized, bareView{
		Title: "Not signed in", Text: "This page needs a session. A link signs one browser in, once, within ten minutes.", Command: "agent page open",
	})
}

// bareView is a page for whoever is not signed in: it says nothing of the node.
type bareView struct {
	Title, Text, Command string
	Link                 string // of a sign-in
	Button               string // of a message
}

// bare writes a page whose style is its own, so that nothing else is served
// without a session.
func bare(w http.ResponseWriter, status int, v bareView) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src '"+bareStyleHash+"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	_ = bareTemplate.Execute(w, struct {
		bareView
		Style template.CSS
	}{v, bareStyle})
}
