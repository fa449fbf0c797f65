package broker

import (
	"errors"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
)

// counters are the broker's metrics. Labels come from closed sets: no client
// can make a new one.
type counters struct {
	connections  prometheus.Counter
	turnedAway   *prometheus.CounterVec
	logins       *prometheus.CounterVec
	received     prometheus.Counter
	published    prometheus.Counter
	admitted     prometheus.Counter
	refused      *prometheus.CounterVec
	unsubscribed *prometheus.CounterVec
	delivered    prometheus.Counter
	dropped      prometheus.Counter
	kicked       *prometheus.CounterVec
	broken       *prometheus.CounterVec
	panics       prometheus.Counter
	acceptErrors prometheus.Counter
	paced        prometheus.Counter
	heldUp       prometheus.Counter
	collected    prometheus.Counter
	gathered     prometheus.Counter

	handshakesPaced prometheus.Counter
	acknowledged    prometheus.Histogram
}

// newCounters registers the broker's counters.
func newCounters(r prometheus.Registerer) *counters {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "banmesh_broker", Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "banmesh_broker", Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		return c
	}
	acknowledged := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "banmesh_broker", Name: "acknowledgement_seconds", Help: "Time from a publication at QoS 1 until its acknowledgement, which waits for the disk.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	r.MustRegister(acknowledged)
	return &counters{
		acknowledged:    acknowledged,
		connections:     counter("connections_total", "Connections that were accepted."),
		turnedAway:      vector("turned_away_total", "Connections that did not become clients, by reason.", "reason"),
		logins:          vector("logins_total", "Clients that logged in, by method.", "method"),
		received:        counter("packets_received_total", "Packets of clients."),
		published:       counter("publications_total", "Publications of clients."),
		admitted:        counter("publications_admitted_total", "Publications that were admitted."),
		refused:         vector("publications_refused_total", "Publications that were refused, by reason.", "reason"),
		unsubscribed:    vector("subscriptions_refused_total", "Subscriptions that were refused, by reason.", "reason"),
		delivered:       counter("deliveries_total", "Publications handed to a client, retained ones not counted."),
		dropped:         counter("deliveries_dropped_total", "Publications that a session had no room for."),
		kicked:          vector("clients_kicked_total", "Clients that the broker cut, by reason.", "reason"),
		broken:          vector("protocol_errors_total", "Connections that ended with a protocol error, by kind.", "kind"),
		panics:          counter("recovered_panics_total", "Faults of the engine that cost one client its connection."),
		acceptErrors:    counter("accept_errors_total", "Errors of listeners that were survived."),
		paced:           counter("publications_paced_total", "Publications that had to wait for their client's rate."),
		heldUp:          counter("publishers_held_up_total", "Publications after which the publisher waited for most of its readers."),
		gathered:        counter("reads_paused_total", "Pauses before the next piece of a packet that came in too many."),
		handshakesPaced: counter("handshakes_paced_total", "TLS handshakes that had to wait for their turn."),

		collected: counter("retained_collected_total", "Retained messages that were collected: old, revoked or banned."),
	}
}

// serveMetrics answers with a registry's metrics and those of this process.
func serveMetrics(r *prometheus.Registry, version string) http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{r, processMetrics(version)}, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// processMetrics gives the metrics of the process, whichever program it is.
func processMetrics(version string) *prometheus.Registry {
	process := prometheus.NewRegistry()
	process.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "banmesh_build_info", Help: "Which program this is; always 1.",
			ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return process
}

// byLabel gives the counts of a vector that has one label.
func byLabel(v *prometheus.CounterVec) map[string]uint64 {
	found := make(chan prometheus.Metric)
	go func() {
		defer close(found)
		v.Collect(found)
	}()
	counts := map[string]uint64{}
	for m := range found {
		var d dto.Metric
		if m.Write(&d) == nil && len(d.GetLabel()) == 1 && d.GetCounter().GetValue() > 0 {
			counts[d.GetLabel()[0].GetValue()] = uint64(d.GetCounter().GetValue())
		}
	}
	return counts
}

// malformed counts how a connection ended, where it was the client's fault.
func (n *counters) malformed(err error) {
	switch {
	case errors.Is(err, frame.ErrMalformed):
		n.broken.WithLabelValues("malformed").Inc()
	case errors.Is(err, frame.ErrTooLarge):
		n.broken.WithLabelValues("too large").Inc()
	case errors.Is(err, frame.ErrProtocol):
		n.broken.WithLabelValues("protocol").Inc()
	case isTimeout(err):
		n.broken.WithLabelValues("keepalive").Inc()
	}
}

// gauges registers figures that are looked up when somebody asks.
func (b *Broker) gauges(r prometheus.Registerer) {
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "banmesh_broker", Name: name, Help: help}, f))
	}
	gauge("connections", "Open connections.", func() float64 { return float64(b.open.Load()) })
	gauge("connecting", "Connections that have not logged in.", func() float64 { return float64(len(b.connecting)) })
	gauge("sessions", "Sessions, those of absent clients included.", func() float64 { return float64(b.sessions.len()) })
	gauge("subscriptions", "Subscriptions.", func() float64 { return float64(b.index.subscriptions()) })
	gauge("retained_messages", "Retained messages.", func() float64 { return float64(b.store.Status().Messages) })
	gauge("retained_bytes", "Memory of retained messages.", func() float64 { return float64(b.store.Status().Bytes) })
	gauge("retained_pending", "Changes that the disk lacks.", func() float64 { return float64(b.store.Status().Pending) })
	gauge("store_healthy", "1 where the last group was written, 0 otherwise.", func() float64 {
		if b.store.Status().Fault != "" {
			return 0
		}
		return 1
	})
	r.MustRegister(operatorCollector{b.store})
}

const (
	// maxOperators bounds the operators that have metrics of their own: those with
	// the most retained bytes. The others are one together.
	maxOperators = 200
	// otherOperators is the label of those together; no operator has the name.
	otherOperators = "(others)"
)

// An operatorCollector gives how much is retained of each operator.
type operatorCollector struct{ store *retained.Store }

var (
	descOperators        = prometheus.NewDesc("banmesh_broker_operators", "Operators of whom messages are retained.", nil, nil)
	descOperatorBytes    = prometheus.NewDesc("banmesh_broker_operator_retained_bytes", "Memory of an operator's retained messages.", []string{"operator"}, nil)
	descOperatorMessages = prometheus.NewDesc("banmesh_broker_operator_retained_messages", "Retained messages of an operator.", []string{"operator"}, nil)
)

// Describe implements [prometheus.Collector].
func (operatorCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descOperators
	ch <- descOperatorBytes
	ch <- descOperatorMessages
}

// Collect implements [prometheus.Collector].
func (c operatorCollector) Collect(ch chan<- prometheus.Metric) {
	largest, rest, count := c.store.Largest(maxOperators)
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(descOperators, count)
	for _, g := range largest {
		if g.Name == "" { // an open broker knows no operators
			rest.Bytes, rest.Messages = rest.Bytes+g.Bytes, rest.Messages+g.Messages
			continue
		}
		gauge(descOperatorBytes, g.Bytes, g.Name)
		gauge(descOperatorMessages, g.Messages, g.Name)
	}
	if rest.Messages > 0 {
		gauge(descOperatorBytes, rest.Bytes, otherOperators)
		gauge(descOperatorMessages, rest.Messages, otherOperators)
	}
}
