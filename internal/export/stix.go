package export

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// stixTime is a timestamp of STIX 2.1, in milliseconds.
const stixTime = "2006-01-02T15:04:05.000Z"

// stixSpace is the namespace of our identifiers of version 5 (RFC 9562).
var stixSpace = [16]byte{0x5f, 0x1d, 0x3c, 0x6a, 0x20, 0x97, 0x4b, 0x0e, 0x9c, 0x41, 0x8b, 0x55, 0x0e, 0x6d, 0x2a, 0x71}

// stixIndicator is an Indicator object of STIX 2.1.
type stixIndicator struct {
	Type           string   `json:"type"`
	SpecVersion    string   `json:"spec_version"`
	ID             string   `json:"id"`
	CreatedByRef   string   `json:"created_by_ref"`
	Created        string   `json:"created"`
	Modified       string   `json:"modified"`
	Name           string   `json:"name"`
	IndicatorTypes []string `json:"indicator_types"`
	Pattern        string   `json:"pattern"`
	PatternType    string   `json:"pattern_type"`
	ValidFrom      string   `json:"valid_from"`
	ValidUntil     string   `json:"valid_until"`
	Labels         []string `json:"labels"`
}

// stixIdentity is an Identity object of STIX 2.1.
type stixIdentity struct {
	Type          string `json:"type"`
	SpecVersion   string `json:"spec_version"`
	ID            string `json:"id"`
	Created       string `json:"created"`
	Modified      string `json:"modified"`
	Name          string `json:"name"`
	IdentityClass string `json:"identity_class"`
}

// stix answers with a bundle of STIX 2.1: an indicator for each banned address in a
// topic. While a ban lasts its identifier stays, so that a reader updates the object that
// it has.
func (h *Handler) stix(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, listKind{path: "stix", kind: "ip", contentType: "application/stix+json;version=2.1"}, func(out *lineWriter, l *listing) {
		identity := stixIdentity{
			Type: "identity", SpecVersion: "2.1", ID: "identity--" + uuid5(h.o.Identity), Name: "Banmesh operator " + h.o.Identity,
			// An identity that never changes has the date of the first version.
			Created: "2026-11-28T00:00:00.000Z", Modified: "2026-11-28T00:00:00.000Z", IdentityClass: "system",
		}
		first, err := json.Marshal(identity)
		if err != nil {
			return // every field marshals
		}
		out.line(fmt.Appendf(nil, `{"type":"bundle","id":"bundle--%s","objects":[`, uuid5(w.Header().Get("ETag"))))
		out.line(first)
		for i := range l.entries {
			b, err := json.Marshal(h.indicator(l.entries[i], identity.ID, l.now))
			if err != nil {
				continue // every field marshals
			}
			out.line(append([]byte(","), b...))
		}
		out.line([]byte("]}"))
	})
}

// indicator describes a ban. Where its beginning is not known, it begins now
// under an identifier of its end.
func (h *Handler) indicator(e Entry, author string, now time.Time) stixIndicator {
	var began, renewed time.Time
	if h.o.Times != nil {
		began, renewed = h.o.Times(e.Topic, e.Target)
	}
	named := began
	if began.IsZero() {
		began, named = now, e.Until
	}
	if renewed.Before(began) {
		renewed = began
	}
	kind := "ipv6-addr"
	if p, ok := e.Target.Prefix(); ok && p.Addr().Is4() {
		kind = "ipv4-addr"
	}
	until := e.Until
	if !until.After(began) {
		until = began.Add(time.Millisecond) // STIX wants an end after the beginning
	}
	at := func(t time.Time) string { return t.UTC().Format(stixTime) }
	return stixIndicator{
		Type: "indicator", SpecVersion: "2.1", CreatedByRef: author,
		ID:      "indicator--" + uuid5(fmt.Sprintf("%s %s %s %d", h.o.Identity, e.Topic, e.Target, named.Unix())),
		Created: at(began), Modified: at(renewed), Name: e.Target.String(), IndicatorTypes: []string{"malicious-activity"},
		Pattern: fmt.Sprintf("[%s:value = '%s']", kind, e.Target), PatternType: "stix",
		ValidFrom: at(began), ValidUntil: at(until), Labels: []string{string(e.Topic), e.Class.String()},
	}
}

// uuid5 gives the UUID of version 5 of a name in our namespace.
func uuid5(name string) string {
	s := sha1.New()
	s.Write(stixSpace[:])
	s.Write([]byte(name))
	u := s.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
