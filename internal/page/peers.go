package page

import (
	"net/http"
	"strconv"

	"banmesh/internal/control"
)

// peersData is of which use each operator is here.
type peersData struct {
	Peers []peerRow
	Feeds []control.Feed
}

type peerRow struct {
	control.Peer
	// FalseShare is the share of its claims that are of guests, in words; "" where
	// nothing is measured.
	FalseShare string
}

func (s *Server) peers(r *http.Request) (view, error) {
	var d peersData
	var list []control.Peer
	for path, into := range map[string]any{"/v1/peers": &list, "/v1/feeds": &d.Feeds} {
		if err := s.node.Get(r.Context(), path, nil, into); err != nil {
			return view{}, err
		}
	}
	for _, p := range list {
		row := peerRow{Peer: p}
		if p.Measured > 0 {
			row.FalseShare = strconv.FormatFloat(100*float64(p.Guests)/float64(p.Measured), 'f', 2, 64) + " %"
		}
		d.Peers = append(d.Peers, row)
	}
	return view{Title: "Peers", Template: "peers", Data: d}, nil
}

// aboutPeer reads a form about an operator and sends it.
func (s *Server) aboutPeer(r *http.Request, path string) (answer control.CountAnswer, peer string, err error) {
	q := control.PeerRequest{Peer: r.PostFormValue("peer"), Why: comment(r), Yes: yes(r)}
	if q.Topic, err = topic(r); err != nil {
		return answer, q.Peer, err
	}
	if q.For, err = lasts(r); err != nil {
		return answer, q.Peer, err
	}
	return answer, q.Peer, s.node.Post(r.Context(), path, q, &answer)
}

func (s *Server) undo(r *http.Request) (notice, error) {
	a, peer, err := s.aboutPeer(r, "/v1/peers/undo")
	if err != nil {
		return notice{}, err
	}
	n := notice{Good: true, Text: "Nothing of " + peer + " counts any more: " + plural(a.Count, "ban") + " lifted."}
	n.kernel(a.Kernel)
	return n, nil
}

func (s *Server) release(r *http.Request) (notice, error) {
	a, peer, err := s.aboutPeer(r, "/v1/peers/release")
	if err != nil {
		return notice{}, err
	}
	n := notice{Good: true, Text: peer + " counts again."}
	n.kernel(a.Kernel)
	return n, nil
}
