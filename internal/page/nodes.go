package page

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"banmesh/internal/control"
)

// nodesData is the operator's nodes in one view: those whose sockets are here,
// and those of which only the feeds are heard.
type nodesData struct {
	Nodes []nodeRow
	Heard []control.Feed
}

type nodeRow struct {
	Name   string
	Here   bool
	Status control.Status
	Fault  string
	High   int // warnings that are faults
	Met    uint64
}

// nodeWithin is how long another node may take to answer.
const nodeWithin = 3 * time.Second

func (s *Server) nodes(r *http.Request) (view, error) {
	rows := []nodeRow{{Name: "this node", Here: true}}
	clients := []*control.Client{s.node}
	for _, name := range slices.Sorted(maps.Keys(s.o.Nodes)) {
		rows, clients = append(rows, nodeRow{Name: name}), append(clients, control.NewClient(s.o.Nodes[name]))
	}
	ctx, cancel := context.WithTimeout(r.Context(), nodeWithin)
	defer cancel()
	var all sync.WaitGroup
	for i := range rows {
		all.Go(func() {
			x := &rows[i]
			if err := clients[i].Get(ctx, "/v1/status", nil, &x.Status); err != nil {
				x.Fault = err.Error()
			}
			for _, w := range x.Status.Warnings {
				if w.Severity == control.SeverityHigh {
					x.High++
				}
			}
			for _, t := range x.Status.Topics {
				x.Met += t.Packets
			}
		})
	}
	all.Wait()
	var feeds []control.Feed
	if err := s.node.Get(r.Context(), "/v1/feeds", nil, &feeds); err != nil {
		return view{}, err
	}
	d := nodesData{Nodes: rows}
	for _, f := range feeds {
		if f.Operator == rows[0].Status.Operator {
			d.Heard = append(d.Heard, f)
		}
	}
	return view{Title: "Nodes", Template: "nodes", Data: d}, nil
}
