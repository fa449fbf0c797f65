package broker

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/broker/retained"
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

// scraped gives the samples of a broker's metrics whose names begin so, by line.
func scraped(t *testing.T, b *Broker, prefix string) (lines []string) {
	t.Helper()
	w := httptest.NewRecorder()
	serveMetrics(b.registry, "x").ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestTheLargestOperatorsHaveMetricsAndTheOthersOneTogether(t *testing.T) {
	t.Parallel()
	b := community(t)
	for i := range maxOperators + 3 {
		o := ban.OperatorOf([]byte{byte(i), byte(i >> 8)})
		m := &retained.Message{Topic: b.prefix + "sshd/" + o.String() + "/aaaaaaaaaaaaaaaa/head", Payload: make([]byte, 1000+i)}
		if _, err := b.store.Put(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := scraped(t, b, "banmesh_broker_operators "); len(got) != 1 || got[0] != "banmesh_broker_operators 203" {
		t.Errorf("operators: %v", got)
	}
	bytes, messages := scraped(t, b, "banmesh_broker_operator_retained_bytes{"), scraped(t, b, "banmesh_broker_operator_retained_messages{")
	if len(bytes) != maxOperators+1 || len(messages) != maxOperators+1 {
		t.Errorf("%d and %d series", len(bytes), len(messages))
	}
	if !slices.Contains(messages, `banmesh_broker_operator_retained_messages{operator="(others)"} 3`) {
		t.Errorf("the others are not one: %v", messages[:3])
	}
	smallest := ban.OperatorOf([]byte{0, 0})
	if slices.ContainsFunc(bytes, func(l string) bool { return strings.Contains(l, smallest.String()) }) {
		t.Error("the smallest has a series of its own")
	}
}

func TestAcknowledgementsAreTimedInAHistogram(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub := a.join(t, b)
	cardTopic, card := a.card(t, 1)
	topic, head := a.head(1)
	pub.publish(cardTopic, card, 1, true)
	pub.publish(topic, head, 2, true)
	if got := scraped(t, b, "banmesh_broker_acknowledgement_seconds_count"); len(got) != 1 || got[0] != "banmesh_broker_acknowledgement_seconds_count 2" {
		t.Errorf("%v", got)
	}
	if got := scraped(t, b, "banmesh_broker_acknowledgement_seconds_bucket"); len(got) != 15 || !strings.HasSuffix(got[14], `{le="+Inf"} 2`) {
		t.Errorf("%v", got)
	}
}
