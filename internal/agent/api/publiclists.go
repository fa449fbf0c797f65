package api

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/ledger"
)

// PublicLists are the public lists of addresses that count here.
type PublicLists interface {
	// List gives them, but for their use here.
	List() []control.PublicList
	// Approve lets the held edition with a sum count.
	Approve(ctx context.Context, name, sum string) (control.PublicList, error)
}

// publicLists gives the lists, and of which use they were here.
func (s *Server) publicLists(*http.Request) (any, error) {
	list := s.o.Lists.List()
	use := map[string]ledger.Peer{}
	for _, p := range s.o.Ledger.Peers.List() {
		use[p.Name] = p
	}
	for i := range list {
		x := &list[i]
		p := use[string(ban.ImportOf(ban.ImportList, x.Name))]
		x.Banning, x.Met, x.Guests, x.Disputed, x.Overruled, x.Quarantine = p.Banning, p.Met, p.Record.Guests, p.Disputed, p.Overruled, quarantine(p.Quarantine)
		x.Withdrawn = p.Rejected
	}
	return list, nil
}

// approveList lets an edition count that a person has seen.
func (s *Server) approveList(r *http.Request) (any, error) {
	var q control.ListApproval
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	x, err := s.o.Lists.Approve(r.Context(), q.Name, q.Sum)
	if err != nil {
		return nil, err
	}
	if late := s.o.Firewall.Carry(r.Context()); late != "" {
		x.Fault = late
	}
	return x, nil
}

func listDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("banmesh_list_"+name, help, append([]string{"list"}, labels...), nil)
}

var (
	descListEntries   = listDesc("entries", "Entries of a public list that count.")
	descListRefused   = listDesc("refused_entries", "Entries of a public list's edition that were not taken, by reason.", "reason")
	descListHeld      = listDesc("held", "Whether an edition of a public list waits for a person.")
	descListFault     = listDesc("fault", "Whether the newest edition of a public list cannot be had or read.")
	descListConfirmed = listDesc("confirmed_timestamp_seconds", "When a public list was last known to be the newest.")
	descListEnds      = listDesc("end_timestamp_seconds", "When the entries of a public list end, unless it is confirmed.")
)

// A listCollector gives the numbers of public lists.
type listCollector struct{ s *Server }

// Describe implements [prometheus.Collector].
func (c listCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descListEntries, descListRefused, descListHeld, descListFault, descListConfirmed, descListEnds} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c listCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, x := range c.s.o.Lists.List() {
		gauge(descListEntries, float64(x.Entries), x.Name)
		for reason, n := range map[string]int{"junk": x.Junk, "wide": x.Wide, "never-ban": x.Never, "below-minimum": x.Low, "beyond-max-entries": x.Beyond} {
			gauge(descListRefused, float64(n), x.Name, reason)
		}
		gauge(descListHeld, boolean(x.Held != nil), x.Name)
		gauge(descListFault, boolean(x.Fault != ""), x.Name)
		if !x.Confirmed.IsZero() {
			gauge(descListConfirmed, float64(x.Confirmed.Unix()), x.Name)
			gauge(descListEnds, float64(x.Ends.Unix()), x.Name)
		}
	}
}
