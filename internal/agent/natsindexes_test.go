package agent

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"banmesh/internal/config"
	"banmesh/internal/natsindex"
)

func TestANATSServerWithoutAFedIndexIsAvoidedAndTold(t *testing.T) {
	t.Parallel()
	var answer []natsindex.Server
	n := newNATSIndexes(slog.New(slog.DiscardHandler))
	n.read = func(_ context.Context, monitors []string) []natsindex.Server {
		if !slices.Equal(monitors, []string{"http://a:8222", "http://b:8222"}) {
			t.Errorf("it asks %q", monitors)
		}
		return answer
	}
	if n.add(config.Broker{URL: "tcp://x:1883"}) != nil {
		t.Error("a broker without monitoring is judged")
	}
	avoid := n.add(config.Broker{URL: "tcp://a:1883", Others: []string{"tcp://b:1883"}, Monitors: []string{"http://a:8222", "http://b:8222"}})
	for name, c := range map[string]struct {
		servers []natsindex.Server
		avoided []string
		codes   []string
	}{
		"nothing read":       {nil, nil, nil},
		"all well":           {[]natsindex.Server{{State: natsindex.Fed, Holder: "b"}, {State: natsindex.Fed, Holder: "a"}}, nil, nil},
		"one feeds all":      {[]natsindex.Server{{State: natsindex.Fed, Holder: "b"}, {State: natsindex.Fed, Holder: "b"}}, nil, []string{"index-sole"}},
		"one is lost":        {[]natsindex.Server{{State: natsindex.Lost}, {State: natsindex.Fed, Holder: "b"}}, []string{"tcp://a:1883"}, []string{"index-lost"}},
		"unknown is no loss": {[]natsindex.Server{{State: natsindex.Unknown, Why: "x"}, {State: natsindex.Idle}}, nil, nil},
	} {
		answer = c.servers
		n.readOnce(t.Context(), n.clusters[0])
		var avoided, codes []string
		for _, a := range []string{"tcp://a:1883", "tcp://b:1883", "tcp://x:1883"} {
			if avoid(a) {
				avoided = append(avoided, a)
			}
		}
		for _, w := range n.warnings() {
			codes = append(codes, w.Code)
		}
		if !slices.Equal(avoided, c.avoided) || !slices.Equal(codes, c.codes) {
			t.Errorf("%s: avoids %v, warns %v", name, avoided, codes)
		}
	}
}
