package notify

import (
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/control"
)

// kindOf are the warnings that have a kind of their own. Other grave ones are
// faults; light ones are for `agent status` alone, and those of peers come as
// events.
var kindOf = map[string]Kind{
	"certificate": Ending, "pack": Ending, "denials-end": Ending,
	"source": Silent, "log-missing": Silent, "log-silent": Silent, "no-source": Silent, "doctor-log": Silent,
	"ban-does-not-bite": Unbitten,
}

// A standing is a warning that was seen: told once it stood for two looks, and
// over once it is gone for two.
type standing struct {
	Kind  Kind      `json:"kind"`
	Grave bool      `json:"grave"`
	Title string    `json:"title"`
	Mend  string    `json:"mend,omitempty"`
	Since time.Time `json:"since"`
	Told  bool      `json:"told,omitempty"`
	// Gone is since when it is not there, zero while it is.
	Gone time.Time `json:"gone,omitzero"`
}

// maxStanding bounds the warnings that are remembered.
const maxStanding = 200

// settled is how long a warning stands, or is gone, before it is told: a broker
// that is restarted is no news.
const settled = 45 * time.Second

// faultKey makes the identity of a warning: its code and its text without the
// digits, which count on.
func faultKey(w control.Warning) string {
	return w.Code + " " + cut(strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, w.Text), 200)
}

// look compares the warnings of now with those of before and gives the notices of
// those that began and those that are over. mend gives the general command that
// ends a warning, by its code: the warning's own may name files and hosts.
func look(known map[string]*standing, list []control.Warning, mend func(code string) string, now time.Time) (news []Notice) {
	present := map[string]bool{}
	for _, w := range list {
		kind, ok := kindOf[w.Code]
		if !ok {
			kind = Fault
		}
		grave := w.Severity == control.SeverityHigh
		if !ok && !grave {
			continue
		}
		key := faultKey(w)
		present[key] = true
		s := known[key]
		if s == nil {
			if len(known) >= maxStanding {
				continue
			}
			s = &standing{Kind: kind, Grave: grave, Title: w.Title, Mend: mend(w.Code), Since: now}
			known[key] = s
		}
		s.Gone = time.Time{}
		if !s.Told && now.Sub(s.Since) >= settled {
			s.Told = true
			n := s.notice(now)
			n.Detail = w.Text
			if w.Fix != "" {
				n.Detail += "; " + w.Fix
			}
			n.bound()
			news = append(news, n)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		s := known[key]
		switch {
		case present[key]:
		case !s.Told:
			delete(known, key)
		case s.Gone.IsZero():
			s.Gone = now
		case now.Sub(s.Gone) >= settled:
			delete(known, key)
			n := s.notice(now)
			n.Over, n.Mend = true, ""
			n.Text = "over: " + n.Text
			n.bound()
			news = append(news, n)
		}
	}
	return news
}

func (s *standing) notice(now time.Time) Notice {
	return Notice{Kind: s.Kind, At: now, Text: s.Title, Mend: s.Mend, Grave: s.Grave}
}

// forEntry gives the kind under which an entry takes a notice of a warning, ""
// where it takes it under none: a silent log is a fault for whom silent ones
// are not chosen.
func forEntry(e *Entry, n Notice) Kind {
	switch {
	case e.Wants(n.Kind):
		return n.Kind
	case n.Grave && slices.Contains([]Kind{Ending, Silent, Unbitten}, n.Kind) && e.Wants(Fault):
		return Fault
	}
	return ""
}
