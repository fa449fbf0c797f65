package lapi

import (
	"net/http"
	"slices"

	"banmesh/internal/compat/credentials"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
)

// usage adds the traffic that a bouncer dropped since its last report, by origin.
func (s *Server) usage(w http.ResponseWriter, r *http.Request, id identity, b credentials.Bouncer) {
	select {
	case s.metrics <- struct{}{}:
		defer func() { <-s.metrics }()
	default:
		serving.Fault(w, http.StatusServiceUnavailable, "too many reports at once")
		return
	}
	report, err := usage.Read(r)
	if err != nil {
		status, text := usage.Answer(err)
		serving.Fault(w, status, text)
		return
	}
	if report.Components != 1 {
		serving.Fault(w, http.StatusUnprocessableEntity, "a report is of one component")
		return
	}
	s.dropped(id, r.UserAgent(), b, report)
	w.WriteHeader(http.StatusCreated)
}

// dropped adds the report's numbers. Those of origins that nobody was told are left
// out: a bouncer has rules of its own, too, and a client could make up any number of
// names.
func (s *Server) dropped(id identity, userAgent string, b credentials.Bouncer, report usage.Report) {
	named := s.origins.all()
	s.clients.mu.Lock()
	defer s.clients.mu.Unlock()
	c := s.clients.of(id, userAgent, b.Topics, s.o.Elapsed())
	for origin, d := range report.Dropped {
		if !slices.Contains(named, origin) {
			continue
		}
		all := c.Dropped[origin]
		all.Add(d)
		c.Dropped[origin] = all
		if origin == OriginNetwork && s.o.Shared != nil {
			s.o.Shared.Add(d, func(x usage.Ban) bool {
				own := s.o.Operator != nil && slices.Contains(named, x.Operator)
				return !x.Here && !own && (len(b.Topics) == 0 || slices.Contains(b.Topics, x.Topic))
			})
		}
	}
}
