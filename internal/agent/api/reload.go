package api

import (
	"net/http"

	"banmesh/internal/control"
)

// reload reads the configuration again, or tells its effect alone.
func (s *Server) reload(r *http.Request) (any, error) {
	var q control.ReloadRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	return s.o.Reload(r.Context(), q)
}

// effect tells the effect of other rules.
func (s *Server) effect(r *http.Request) (any, error) {
	var q control.RulesRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	if _, ok := s.o.Settings().Find(q.Topic); !ok {
		return nil, noTopic(q.Topic)
	}
	return s.o.Effect(q)
}
