package api

import (
	"net/http"

	"banmesh/internal/control"
	"banmesh/internal/guests"
)

// guests lists the guests.
func (s *Server) guests(*http.Request) (any, error) {
	return each(s.o.Guests(), func(g guests.Guest) control.Guest {
		return control.Guest{Prefix: g.Prefix, Topic: g.Topic, Worked: g.Worked, Last: g.Last, Until: g.Until}
	}), nil
}

// removeGuest ends the guests that a target is or has.
func (s *Server) removeGuest(r *http.Request) (any, error) {
	var q control.GuestRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	if q.Target.IsZero() {
		return nil, control.Refuse(control.CodeBad, "", "no target is given")
	}
	n, err := s.o.RemoveGuest(q.Target)
	if err == nil && n == 0 {
		return nil, control.Refuse(control.CodeMissing, "see `agent guests`", "%s is no guest", q.Target)
	}
	return control.CountAnswer{Count: n}, err
}
