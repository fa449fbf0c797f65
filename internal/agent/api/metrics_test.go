package api

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/cli/clitest"
)

// descriptions gives all that collectors describe.
func descriptions(list ...prometheus.Collector) (out []string) {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		for _, c := range list {
			c.Describe(ch)
		}
	}()
	for d := range ch {
		out = append(out, d.String())
	}
	return slices.Compact(out)
}

func TestTheDocumentationHasEveryMetricOfTheAgent(t *testing.T) {
	s := New(Options{Version: "x", LineLatency: NewLineLatency(time.Now), ClaimLatency: NewClaimLatency(time.Now)})
	clitest.CheckMetrics(t, "../../../docs/metrics.md", "## Agent", descriptions(s.collectors()...), *update)
}
