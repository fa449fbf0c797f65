package broker

import (
	"flag"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/cli/clitest"
)

var update = flag.Bool("update", false, "write docs/metrics.md anew")

func TestTheDocumentationHasEveryMetricOfTheBroker(t *testing.T) {
	b, err := New(Options{Network: "net", Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	g, err := NewGateway(GatewayOptions{Network: "net", Ingress: mqttclient.Endpoint{URL: "tcp://127.0.0.1:1"}, Target: mqttclient.Endpoint{URL: "tcp://127.0.0.1:2"}})
	if err != nil {
		t.Fatal(err)
	}
	for heading, registries := range map[string][]*prometheus.Registry{
		"## Broker": {b.registry, processMetrics("x")}, "## Gateway of the broker": {g.options.Registry, processMetrics("x")},
	} {
		var all []string
		for _, r := range registries {
			ch := make(chan *prometheus.Desc)
			go func() {
				defer close(ch)
				r.Describe(ch)
			}()
			for d := range ch {
				all = append(all, d.String())
			}
		}
		clitest.CheckMetrics(t, "../../docs/metrics.md", heading, all, *update)
	}
}
