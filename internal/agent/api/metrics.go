package api

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// collector gives the node's state in Prometheus's terms when it is asked, from
// its status, so that the two cannot disagree.
type collector struct {
	s *Server
}

var (
	descBans     = prometheus.NewDesc("banmesh_bans", "Bans in force.", []string{"topic", "origin"}, nil)
	descPackets  = prometheus.NewDesc("banmesh_dropped_packets_total", "Packets that bans met, observed topics too.", []string{"topic"}, nil)
	descBytes    = prometheus.NewDesc("banmesh_dropped_bytes_total", "Bytes that bans met, observed topics too.", []string{"topic"}, nil)
	descRead     = prometheus.NewDesc("banmesh_source_lines_total", "Lines read.", []string{"source"}, nil)
	descMatched  = prometheus.NewDesc("banmesh_source_matched_total", "Lines that were offences.", []string{"source"}, nil)
	descLast     = prometheus.NewDesc("banmesh_source_last_line_timestamp_seconds", "When a line was read last.", []string{"source"}, nil)
	descReadable = prometheus.NewDesc("banmesh_source_readable", "Whether a named log is there and may be read.", []string{"source"}, nil)
	descBroker   = prometheus.NewDesc("banmesh_broker_up", "Whether a broker is connected.", []string{"broker"}, nil)
	descEnforced = prometheus.NewDesc("banmesh_enforcing", "Whether bans reach the kernel.", nil, nil)
	descWarnings = prometheus.NewDesc("banmesh_warnings", "Things wrong with the node, as `agent status` shows them.", []string{"code"}, nil)
	descWatched  = prometheus.NewDesc("banmesh_watched", "Targets that their first offence here bans.", nil, nil)
	descPeers    = map[peerMetric]*prometheus.Desc{
		peerWaiting: prometheus.NewDesc("banmesh_peer_waiting_claims", "Claims of a peer that wait for a person, or for room.", []string{"operator", "topic"}, nil),
		peerLive:    prometheus.NewDesc("banmesh_peer_live_claims", "Claims of a peer that count.", []string{"operator", "topic"}, nil),
		peerAdded:   prometheus.NewDesc("banmesh_peer_added_claims", "Claims of a peer that came to count within the hour.", []string{"operator", "topic"}, nil),
		peerAllowed: prometheus.NewDesc("banmesh_peer_allowed_claims", "Claims of a peer that may come to count within an hour, by its own turnover.", []string{"operator", "topic"}, nil),
	}
	descDoubted = prometheus.NewDesc("banmesh_uncorroborated_total", "Offences of log lines that did not count, because the kernel knew no connection of the address.", []string{"topic"}, nil)
	descGate    = prometheus.NewDesc("banmesh_gate_answers_total", "Calls of the wallet gate, by what became of them.", []string{"answer"}, nil)
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descBans, descPackets, descBytes, descRead, descMatched, descLast, descReadable, descBroker, descEnforced, descWarnings, descWatched, descDoubted, descGate} {
		ch <- d
	}
	for _, d := range descPeers {
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
	c.s.peerMetrics(func(m peerMetric, v float64, operator, topic string) { gauge(descPeers[m], v, operator, topic) })
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

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// metrics serves a registry of the node's own.
func (s *Server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}
