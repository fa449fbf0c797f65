package page

import (
	"net/http"

	"banmesh/internal/control"
	"banmesh/internal/doctor"
)

// sourcesData is how the logs and the brokers are.
type sourcesData struct {
	Logs     []control.SourceStatus
	Missing  []control.SourceStatus // named by topics and not on this machine
	Brokers  []control.BrokerStatus
	Feeds    []control.Feed
	Compat   []control.Compat
	Gate     *control.GateStatus
	Shielded []control.Shielded
	Cut      uint64
	Dropped  uint64
}

func (s *Server) sources(r *http.Request) (view, error) {
	var status control.Status
	d := sourcesData{}
	for path, into := range map[string]any{"/v1/status": &status, "/v1/feeds": &d.Feeds} {
		if err := s.node.Get(r.Context(), path, nil, into); err != nil {
			return view{}, err
		}
	}
	for _, x := range doctor.GroupLogs(status.Sources) {
		if x.Found == 0 && x.Error == "" {
			d.Missing = append(d.Missing, x)
		} else {
			d.Logs = append(d.Logs, x)
		}
	}
	d.Brokers, d.Compat, d.Gate, d.Shielded, d.Cut, d.Dropped = status.Brokers, status.Compat, status.Gate, status.Shielded, status.Cut, status.Dropped
	return view{Title: "Sources", Template: "sources", Data: d}, nil
}
