package vallumd

import (
	"bytes"
	"net/netip"
	"time"

	"banmesh/internal/broker/frame"
)

// The two actions of vallumd's messages.
const (
	add = "add"
	del = "del"
)

// maxPayload is the longest text of an address.
const maxPayload = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")

// parse reads a message. ok is false for one that vallumd would not follow, for one in
// a set that is not accepted, for an address that no remote host has, and for a
// retained one: the contract has none, and nobody knows how old it is.
func parse(sets []Set, p frame.Publication) (w Message, name string, ok bool) {
	if p.Retain || len(p.Payload) == 0 || len(p.Payload) > maxPayload {
		return w, "", false
	}
	at := bytes.LastIndexByte(p.Topic, '/')
	if at < 0 {
		return w, "", false
	}
	switch string(p.Topic[at+1:]) {
	case add:
		w.Add = true
	case del:
	default:
		return w, "", false
	}
	for _, s := range sets {
		if s.Accept && (string(p.Topic[:at]) == s.Name || s.Name6 != "" && string(p.Topic[:at]) == s.Name6) {
			w.Topic, name = s.Topic, string(p.Topic[:at])
		}
	}
	addr, err := netip.ParseAddr(string(p.Payload))
	if err != nil || addr.Zone() != "" || w.Topic == "" {
		return w, "", false
	}
	w.Addr = addr.Unmap()
	if w.Addr.IsUnspecified() || w.Addr.IsLoopback() || w.Addr.IsMulticast() || w.Addr.IsLinkLocalUnicast() || w.Addr == broadcast {
		return w, "", false
	}
	return w, name, true
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// echoes are our own messages that are to come back where a set is told and accepted:
// MQTT 3.1.1 hands a client its own publications.
type echoes map[change]echo

type echo struct {
	times int
	last  time.Time
}

// echoTime is how long a message may take to come back, over a lost connection too.
const echoTime = time.Minute

func (e echoes) expect(m change, now time.Time) { e[m] = echo{e[m].times + 1, now} }

// take says whether a message is one that was expected, and expects it once less.
func (e echoes) take(m change, now time.Time) bool {
	x, ok := e[m]
	if !ok || now.Sub(x.last) > echoTime {
		return false
	}
	if x.times--; x.times == 0 {
		delete(e, m)
	} else {
		e[m] = x
	}
	return true
}

// sweep forgets those that did not come.
func (e echoes) sweep(now time.Time) {
	for m, x := range e {
		if now.Sub(x.last) > echoTime {
			delete(e, m)
		}
	}
}

// reconnected waits anew for those that a kept session still has, and for none where the
// broker forgot the session with them.
func (e echoes) reconnected(resumed bool, now time.Time) {
	if !resumed {
		clear(e)
	}
	for m, x := range e {
		e[m] = echo{x.times, now}
	}
}
