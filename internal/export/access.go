package export

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Access says who may read over the network: with the token, or from a
// network. Where neither is named everybody may, which suits loopback alone.
type Access struct {
	Token    string
	Networks []netip.Prefix
}

// MinToken is the length of a token that nobody guesses.
const MinToken = 16

// Only passes on the requests of those who may read. The token comes as
// "Authorization: Bearer TOKEN", as the password of basic authentication, or as
// token=TOKEN for devices that can send no header.
func (a Access) Only(h http.Handler) http.Handler {
	if a.Token == "" && len(a.Networks) == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.admits(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="banmesh", charset="UTF-8"`)
			refuse(w, http.StatusUnauthorized, errors.New("neither a token nor an allowed network"), "Authorization: Bearer TOKEN, or allow in [http]")
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (a Access) admits(r *http.Request) bool {
	if peer, ok := peerOf(r); ok && slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return p.Contains(peer) }) {
		return true
	}
	if a.Token == "" {
		return false
	}
	return a.matches(bearer(r)) || a.matches(password(r)) || a.matches(r.URL.Query().Get("token"))
}

func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

func password(r *http.Request) string {
	_, token, _ := r.BasicAuth()
	return token
}

// matches compares in a time that tells nothing about the token.
func (a Access) matches(token string) bool {
	x, y := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.Token))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
