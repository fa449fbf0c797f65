package page

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

var statFile = os.Stat

// doors are the names by which the page may be asked for. Others are refused:
// a name of a stranger's that resolves to this machine (DNS rebinding) would make
// the page a part of the stranger's site.
type doors struct {
	scheme string
	hosts  map[string]bool
}

func newDoors(address string) *doors {
	d := &doors{scheme: "http", hosts: map[string]bool{}}
	u, err := url.Parse(address)
	if err != nil {
		return d
	}
	d.scheme = u.Scheme
	d.hosts[strings.ToLower(u.Host)] = true
	if a := net.ParseIP(u.Hostname()); a != nil && a.IsLoopback() {
		for _, name := range []string{"localhost", "127.0.0.1", "[::1]"} {
			d.hosts[name+":"+u.Port()] = true
		}
	}
	return d
}

// knows says whether a request's Host header is one of the page's.
func (d *doors) knows(host string) bool { return d.hosts[strings.ToLower(host)] }

// from says whether a request that changes something comes from the page
// itself. Every browser sends Origin with a form that is posted.
func (d *doors) from(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	scheme, host, ok := strings.Cut(origin, "://")
	return ok && scheme == d.scheme && strings.EqualFold(host, r.Host) && d.knows(host)
}

// policy is the page's own style sheet, script and pictures, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard sets the headers of every answer. Referrer is same-origin and not
// no-referrer: with the latter browsers send forms with the origin "null".
func guard(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if !s.doors.knows(r.Host) {
		http.Error(w, "this page is not known by that name; url in [page] of agent.toml says its name", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.URL.Path == "/alive" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("alive\n"))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !s.doors.from(r) {
		s.refuse(w, r, http.StatusForbidden, "This form did not come from the page itself, so nothing was done.", "Open the page again and repeat the step there.")
		return
	}
	if r.Method == http.MethodPost && r.ParseForm() != nil {
		s.refuse(w, r, http.StatusRequestEntityTooLarge, "The form is too large, or is none.", "A form has at most 256 KiB.")
		return
	}
	if r.URL.Path == "/sign-in" {
		s.signIn(w, r)
		return
	}
	if r.URL.Path == buttonPath {
		s.press(w, r)
		return
	}
	who, ok := s.sessions.of(r, s.cookieName())
	if !ok {
		s.askToSignIn(w)
		return
	}
	r = r.WithContext(withSession(r.Context(), who))
	if r.Method == http.MethodPost && !who.mayPost(r) {
		s.refuse(w, r, http.StatusForbidden, "The form is of another session, so nothing was done.", "Open the page again and repeat the step there.")
		return
	}
	s.mux.ServeHTTP(w, r)
}
