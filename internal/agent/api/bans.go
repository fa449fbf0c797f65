package api

import (
	"net/http"

	"banmesh/internal/control"
)

// maxListed bounds one listing; a longer one is asked for by topic, or read
// from /v1/bans.json, which streams.
const maxListed = 200_000

// bans lists the bans in force.
func (s *Server) bans(r *http.Request) (any, error) {
	q := r.URL.Query()
	f, err := s.banFilter(q.Get("topic"), q.Get("origin"))
	if err != nil {
		return nil, err
	}
	list := []control.Ban{}
	for x := range s.o.Ledger.Bans(f) {
		if len(list) == maxListed {
			return nil, control.Refuse(control.CodeRefused, "ask for one topic, or read /v1/bans.json from the socket, which streams", "more than %d bans", maxListed)
		}
		list = append(list, banOf(x, s.o.Settings().NameOf))
	}
	if _, ok := s.o.Settings().Find(f.Topic); len(list) == 0 && f.Topic != "" && !ok {
		return nil, noTopic(f.Topic)
	}
	return list, nil
}
