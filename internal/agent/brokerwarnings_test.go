package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/wire"
)

func TestAPublisherLearnsWhatBecameOfItsMessages(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	for name, c := range map[string]struct {
		broker control.BrokerStatus
		codes  []string
		text   string
	}{
		"all well":                  {control.BrokerStatus{Connected: true}, nil, ""},
		"read-backs that failed":    {control.BrokerStatus{Connected: true, Lost: 7}, []string{"broker-loses"}, "acknowledged 7 messages"},
		"the same, with the reason": {control.BrokerStatus{Connected: true, Lost: 7, Refusal: wire.Refusals["quota"]}, []string{"broker-keeps-none"}, "does not keep them; it says why: this operator's share"},
		"the reason alone":          {control.BrokerStatus{Connected: true, Refusal: wire.Refusals["future"]}, []string{"broker-keeps-none"}, "dated in the future"},
		"another with these keys":   {control.BrokerStatus{Connected: true, Contended: true}, []string{"another-machine"}, "another machine uses this node's keys"},
		"no answer for a moment":    {control.BrokerStatus{Connected: true, Unanswered: 3, UnansweredSince: now.Add(-time.Second)}, nil, ""},
		"no answer for seconds":     {control.BrokerStatus{Connected: true, Unanswered: 3, UnansweredSince: now.Add(-7 * time.Second)}, []string{"unanswered"}, "3 messages of this node, the oldest for 7s"},
		"nobody there":              {control.BrokerStatus{}, []string{"no-broker"}, "nothing new is shared or heard"},
	} {
		c.broker.URL = "tcp://192.0.2.1:1883"
		var codes []string
		text := ""
		for _, w := range warnBrokers([]control.BrokerStatus{c.broker}, "banmesh", now) {
			codes, text = append(codes, w.Code), text+w.Text+"\n"
			if w.Fix == "" {
				t.Errorf("%s: %s names no way out", name, w.Code)
			}
		}
		if !slices.Equal(codes, c.codes) || !strings.Contains(text, c.text) {
			t.Errorf("%s: %v\n%s", name, codes, text)
		}
	}
}
