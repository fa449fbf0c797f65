package page

import (
	"net/http"

	"banmesh/internal/control"
)

func (s *Server) holds(r *http.Request) (view, error) {
	var list []control.Hold
	if err := s.node.Get(r.Context(), "/v1/hold", nil, &list); err != nil {
		return view{}, err
	}
	return view{Title: "Holds", Template: "holds", Data: list}, nil
}

func (s *Server) approve(r *http.Request) (notice, error) {
	a, peer, err := s.aboutPeer(r, "/v1/hold/approve")
	if err != nil {
		return notice{}, err
	}
	n := notice{Good: true, Text: "Approved " + plural(a.Count, "claim") + " of " + peer + "."}
	n.kernel(a.Kernel)
	return n, nil
}

func (s *Server) reject(r *http.Request) (notice, error) {
	a, peer, err := s.aboutPeer(r, "/v1/hold/reject")
	if err != nil {
		return notice{}, err
	}
	n := notice{Good: true, Text: "Rejected " + plural(a.Count, "claim") + " of " + peer + ": they never count."}
	n.kernel(a.Kernel)
	return n, nil
}
