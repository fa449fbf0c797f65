package settings

import (
	"strings"
	"testing"

	"banmesh/internal/config"
)

func TestMonitoringBelongsToTheAddressesOfItsBroker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		broker config.Broker
		fault  string
	}{
		"none":       {config.Broker{URL: "tcp://a"}, ""},
		"one each":   {config.Broker{URL: "tcp://a", Others: []string{"tcp://b"}, Monitors: []string{"http://a:8222", "https://b:8222/nats"}}, ""},
		"too few":    {config.Broker{URL: "tcp://a", Others: []string{"tcp://b"}, Monitors: []string{"http://a:8222"}}, "1 addresses of monitoring for the 2 of url and others"},
		"too many":   {config.Broker{URL: "tcp://a", Monitors: []string{"http://a:8222", "http://b:8222"}}, "want one for each"},
		"MQTT":       {config.Broker{URL: "tcp://a", Monitors: []string{"tcp://a:1883"}}, "want http://"},
		"no host":    {config.Broker{URL: "tcp://a", Monitors: []string{"http:///jsz"}}, "want http://"},
		"with query": {config.Broker{URL: "tcp://a", Monitors: []string{"http://a/?x=1"}}, "want http://"},
	} {
		var faults []string
		checkBrokers([]config.Broker{c.broker}, func(key, format string, _ ...any) { faults = append(faults, key+": "+format) })
		if got := strings.Join(faults, "\n"); (c.fault == "") != (got == "") || c.fault != "" && !strings.Contains(got, "brokers.0.monitors") {
			t.Errorf("%s: %q", name, got)
		}
	}
	var s Settings
	out := s.onceEach([]config.Broker{
		{URL: "tcp://a"},
		{URL: "tcp://a", Others: []string{"tcp://b"}, Monitors: []string{"http://a:8222", "http://b:8222"}},
	})
	if len(out) != 2 || out[1].URL != "tcp://b" || strings.Join(out[1].Monitors, " ") != "http://b:8222" {
		t.Errorf("%+v", out)
	}
}
