package api

import (
	"context"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"banmesh/internal/control"
)

// collector gives the node's state in Prometheus's terms when it is asked, from
// its status, so that the two cannot disagree.
type collector struct {
	s *Server
}

var (
	descBans        = prometheus.NewDesc("banmesh_bans", "Bans in force.", []string{"topic", "origin"}, nil)
	descPackets     = prometheus.NewDesc("banmesh_dropped_packets_total", "Packets that bans met, observed topics too.", []string{"topic"}, nil)
	descBytes       = prometheus.NewDesc("banmesh_dropped_bytes_total", "Bytes that bans met, observed topics too.", []string{"topic"}, nil)
	descRead        = prometheus.NewDesc("banmesh_source_lines_total", "Lines read.", []string{"source"}, nil)
	descMatched     = prometheus.NewDesc("banmesh_source_matched_total", "Lines that were offences.", []string{"source"}, nil)
	descLast        = prometheus.NewDesc("banmesh_source_last_line_timestamp_seconds", "When a line was read last.", []string{"source"}, nil)
	descReadable    = prometheus.NewDesc("banmesh_source_readable", "Whether a named log is there and may be read.", []string{"source"}, nil)
	descBroker      = prometheus.NewDesc("banmesh_broker_up", "Whether a broker is connected.", []string{"broker"}, nil)
	descEnforced    = prometheus.NewDesc("banmesh_enforcing", "Whether bans reach the kernel.", nil, nil)
	descWarnings    = prometheus.NewDesc("banmesh_warnings", "Things wrong with the node, as `agent status` shows them.", []string{"code"}, nil)
	descWatched     = prometheus.NewDesc("banmesh_watched", "Targets that their first offence here bans.", nil, nil)
	descDoubted     = prometheus.NewDesc("banmesh_uncorroborated_total", "Offences of log lines that did not count, because the kernel knew no connection of the address.", []string{"topic"}, nil)
	descHolds       = prometheus.NewDesc("banmesh_holds", "Feeds whose new claims are held, by reason.", []string{"reason"}, nil)
	descHeld        = prometheus.NewDesc("banmesh_held_claims", "Claims that are held, by reason.", []string{"reason"}, nil)
	descHeard       = prometheus.NewDesc("banmesh_messages_received_total", "Messages that brokers delivered.", nil, nil)
	descRefused     = prometheus.NewDesc("banmesh_messages_refused_total", "Messages of brokers that were not taken, by reason.", []string{"reason"}, nil)
	descSent        = prometheus.NewDesc("banmesh_messages_published_total", "Messages handed to brokers, counted for each broker.", nil, nil)
	descApplied     = prometheus.NewDesc("banmesh_changes_applied_total", "Changes of peers' feeds that were applied.", nil, nil)
	descFaults      = prometheus.NewDesc("banmesh_store_errors_total", "Transactions of the store that failed.", nil, nil)
	descFeeds       = prometheus.NewDesc("banmesh_feeds", "Feeds, by how they stand.", []string{"status"}, nil)
	descCertificate = prometheus.NewDesc("banmesh_certificate_end_timestamp_seconds", "When this node's certificate ends.", nil, nil)
	descPack        = prometheus.NewDesc("banmesh_pack_end_timestamp_seconds", "When a signed pack of never-ban entries ends.", []string{"pack"}, nil)
	descGate        = prometheus.NewDesc("banmesh_gate_answers_total", "Calls of the wallet gate, by what became of them.", []string{"answer"}, nil)
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descBans, descPackets, descBytes, descRead, descMatched, descLast, descReadable, descBroker, descEnforced, descWarnings, descWatched, descDoubted, descGate, descHolds, descHeld, descHeard, descRefused, descSent, descApplied, descFaults, descFeeds, descCertificate, descPack} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.s.Status(context.Background())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, t := range s.Topics {
		gauge(descBans, float64(t.Own), string(t.Topic), Here)
		gauge(descBans, float64(t.Bans-t.Own), string(t.Topic), "peers")
		counter(descPackets, t.Packets, string(t.Topic))
		counter(descBytes, t.Bytes, string(t.Topic))
	}
	for _, x := range s.Sources {
		label := x.Kind + ":" + x.Log // two journal matches may have one name
		counter(descRead, x.Read, label)
		counter(descMatched, x.Matched, label)
		gauge(descReadable, boolean(x.Error == "" && x.Found != 0), label)
		if !x.LastLine.IsZero() {
			gauge(descLast, float64(x.LastLine.UnixMilli())/1000, label)
		}
	}
	for _, b := range s.Brokers {
		gauge(descBroker, boolean(b.Connected), b.URL)
	}
	codes := map[string]int{}
	for _, w := range s.Warnings {
		codes[w.Code]++
	}
	for code, n := range codes {
		gauge(descWarnings, float64(n), code)
	}
	gauge(descEnforced, boolean(s.Enforcement != "observe" && s.Enforcement != "off"))
	gauge(descWatched, float64(s.Watched))
	c.sharing(gauge, counter)
	for _, j := range c.s.o.Detection.Status().Jails {
		counter(descDoubted, j.Uncorroborated, string(j.Topic))
	}
	if n, ok := c.s.o.Gate(context.Background()); ok && n.Running {
		for answer, v := range map[string]uint64{
			"allowed": n.Allowed, "refused": n.Refused, "unread": n.Unread, "stray": n.Stray,
			"upstream-refused": n.UpstreamRefused, "upstream-failed": n.UpstreamFailed,
		} {
			counter(descGate, v, answer)
		}
	}
}

// sharing gives the numbers of the node's part in the network.
func (c collector) sharing(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	holds, claims := map[string]int{}, map[string]int{}
	for _, why := range holdWords {
		holds[why] = 0 // an alert can tell none from not known
	}
	for _, h := range holdsOf(c.s) {
		holds[h.Why]++
		claims[h.Why] += h.Claims
	}
	for why, n := range holds {
		gauge(descHolds, float64(n), why)
		gauge(descHeld, float64(claims[why]), why)
	}
	n := c.s.o.Sharing.Counts()
	counter(descHeard, n.Received)
	for reason, v := range n.Refused {
		counter(descRefused, v, reason)
	}
	counter(descSent, n.Published)
	counter(descApplied, n.Applied)
	counter(descFaults, n.StoreErrors)
	feeds := map[string]int{}
	for _, f := range c.s.o.Sharing.Feeds() {
		feeds[f.Status]++
	}
	for status, n := range feeds {
		gauge(descFeeds, float64(n), status)
	}
	if end := c.s.o.Sharing.CertificateEnd(); !end.IsZero() {
		gauge(descCertificate, float64(end.Unix()))
	}
	for _, p := range c.s.o.Settings().Packs() {
		gauge(descPack, float64(p.Expires.Unix()), p.Name)
	}
}

func holdsOf(s *Server) []control.Hold { return holds(s.o.Ledger.Peers.Holds()) }

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// buildInfo is always 1; its labels say which program it is.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "banmesh_build_info", Help: "Which program this is; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}

// collectors are all that have metrics of the agent.
func (s *Server) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		collector{s},
		listCollector{s},
		compatCollector{s},
		messageCollector{s},
		&peerCollector{s: s}, s.o.LineLatency.histogram, s.o.ClaimLatency.histogram, buildInfo(s.o.Version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
}

// metrics serves a registry of the node's own.
func (s *Server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(s.collectors()...)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}
