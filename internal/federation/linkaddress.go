package federation

import (
	"errors"
	"net/url"
	"slices"
	"time"
)

// errAvoided ends a connection to an address that [Broker.Avoid] names.
var errAvoided = errors.New("this address hands out nothing new; the next address is tried")

// avoided says whether there is a reason to be at another address, and another
// one without such a reason. l.mu is held.
func (l *link) avoided(at *url.URL) bool {
	if l.broker.Avoid == nil || !l.broker.Avoid(at.String()) {
		return false
	}
	return slices.ContainsFunc(l.urls, func(u *url.URL) bool { return u != at && !l.broker.Avoid(u.String()) })
}

// next gives the address to try after the one in use: those that are to be avoided
// only once as many attempts in a row have failed as there are addresses,
// because an address that hands out nothing new is better than none.
// l.mu is held.
func (l *link) next() *url.URL {
	at := slices.Index(l.urls, l.url)
	for i := range l.urls {
		u := l.urls[(at+1+i)%len(l.urls)]
		if l.failures >= len(l.urls) || !l.avoided(u) {
			return u
		}
	}
	return l.url
}

// attempted counts the attempts that fail in a row.
func (l *link) attempted(made bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures++; made {
		l.failures = 0
	}
}

// leaveAvoided gives up a connection to an address that is to be avoided. It stays
// for as long as [link.move] would, so that a better address which does not
// answer costs a moment every half minute and more and more rarely.
func (l *link) leaveAvoided(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected || !l.avoided(l.url) {
		return
	}
	stay := min(moveMost, moveLeast<<min(l.moves, 10))
	if now.Sub(l.since) < stay || now.Sub(l.moved) < stay && !now.Before(l.moved) {
		return
	}
	l.moved, l.moves = now, l.moves+1
	l.giveUp(errAvoided)
}
