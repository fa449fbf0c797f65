package agent

import (
	"context"
	"maps"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
)

// mostNamed is how many bans at a start are looked up for those on whose word
// they rest; a node that observes more counts for topics alone.
const mostNamed = 200_000

// onWhoseWord names those on whose word a ban in an observed topic rests, for
// counters of their own; "" where the topic is enforced.
func (e *enforcer) onWhoseWord(topic ban.Topic, target ban.Target) string {
	t, ok := e.a.current().find(topic)
	if !ok || !t.scope.Observe {
		return ""
	}
	if _, ok := e.fw.(firewall.ByOperator); !ok {
		return ""
	}
	var names []string
	for _, s := range e.a.ledger.Explain(target).Standings {
		if s.Topic != topic || s.Target != target {
			continue
		}
		for _, name := range banOf(s).Origin {
			names = append(names, strings.Map(plainName, name))
		}
	}
	return strings.Join(names, ",")
}

// plainName makes a name that the kernel takes for a counter.
func plainName(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
		return r
	}
	return '_'
}

// operators gives what observed bans met, by those on whose word they rest.
func (e *enforcer) operators(ctx context.Context) map[ban.Topic][]control.OperatorCount {
	by, ok := e.fw.(firewall.ByOperator)
	if !ok {
		return nil
	}
	counters, err := by.Operators(ctx)
	if err != nil {
		return nil // said where the topics' counters are read
	}
	out := map[ban.Topic][]control.OperatorCount{}
	for topic, names := range counters {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out[topic] = append(out[topic], control.OperatorCount{Name: name, Packets: names[name].Packets, Bytes: names[name].Bytes})
		}
	}
	return out
}
