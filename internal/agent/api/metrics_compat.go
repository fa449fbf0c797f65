package api

import (
	"github.com/prometheus/client_golang/prometheus"
)

// A compatCollector gives the numbers of other programs' protocols: of those who ask
// this node, and of the private brokers of vallumd's.
type compatCollector struct{ s *Server }

func compatDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("banmesh_compat_"+name, help, append([]string{"protocol"}, labels...), nil)
}

func vallumdDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("banmesh_vallumd_"+name, help, []string{"broker"}, nil)
}

var (
	descCompatClients  = compatDesc("clients", "Programs that asked since the agent started.")
	descCompatRefused  = compatDesc("refused_credentials_total", "Wrong keys and passwords.")
	descCompatRequests = compatDesc("refused_requests_total", "Requests that a program says that it refused.", "name")
	descCompatPackets  = compatDesc("refused_packets_total", "Packets that a program says that it refused.", "name")

	descVallumdUp        = vallumdDesc("up", "Whether a private broker is connected.")
	descVallumdPublished = vallumdDesc("published_addresses", "Addresses that the sets of a broker have from this node.")
	descVallumdLeftOut   = vallumdDesc("left_out_bans", "Bans in force that no set can hold.")
	descVallumdReceived  = vallumdDesc("messages_received_total", "Messages of others that were taken.")
	descVallumdIgnored   = vallumdDesc("messages_ignored_total", "Messages that say nothing, or that nobody asked for.")
	descVallumdFull      = vallumdDesc("messages_beyond_budget_total", "Messages of others that found no room in the budget.")
	descVallumdLast      = vallumdDesc("last_message_timestamp_seconds", "When a message of others was taken last.")
)

// Describe implements [prometheus.Collector].
func (c compatCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descCompatClients, descCompatRefused, descCompatRequests, descCompatPackets,
		descVallumdUp, descVallumdPublished, descVallumdLeftOut, descVallumdReceived, descVallumdIgnored, descVallumdFull, descVallumdLast,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c compatCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, x := range c.s.compat() {
		gauge(descCompatClients, float64(len(x.Clients)), x.Protocol)
		if x.Refused != nil {
			counter(descCompatRefused, x.Refused.Count, x.Protocol)
		} else {
			counter(descCompatRefused, 0, x.Protocol)
		}
		requests, packets := map[string]uint64{}, map[string]uint64{}
		for _, client := range x.Clients { // a name may ask from several addresses
			requests[client.Name] += client.Requests
			packets[client.Name] += client.Packets
		}
		for name := range requests {
			counter(descCompatRequests, requests[name], x.Protocol, name)
			counter(descCompatPackets, packets[name], x.Protocol, name)
		}
	}
	for _, x := range c.s.vallumds() {
		gauge(descVallumdUp, boolean(x.Connected), x.Name)
		gauge(descVallumdPublished, float64(x.Told), x.Name)
		gauge(descVallumdLeftOut, float64(x.LeftOut), x.Name)
		counter(descVallumdReceived, x.Received, x.Name)
		counter(descVallumdIgnored, x.Ignored, x.Name)
		counter(descVallumdFull, uint64(x.Full), x.Name)
		if !x.Last.IsZero() {
			gauge(descVallumdLast, float64(x.Last.Unix()), x.Name)
		}
	}
}
