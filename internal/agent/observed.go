package agent

import (
	"context"
	"maps"
	"slices"
	"strings"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
)

// mostNamed is how many bans at a start are looked up for those on whose word
// they rest; a node that observes more counts for topics alone.
const mostNamed = 200_000

// onWhoseWord names those on whose word a ban in an observed topic rests, for
// counters of their own; "" where the topic is enforced.
func (e *enforcer) onWhoseWord(topic ban.Topic, target ban.Target) string {
	t, ok := e.o.settings().Find(topic)
	if !ok || !t.Scope.Observe {
		return ""
	}
	if _, ok := e.fw.(firewall.ByOperator); !ok {
		return ""
	}
	return e.names(e.o.ledger.Enforcement.Origin(topic, target))
}

// relabel tells the firewall on whose word the bans of topics rest that have
// just come to be observed; as long as they were enforced nobody asked.
func (e *enforcer) relabel(ctx context.Context, scopes []firewall.Scope) error {
	e.mu.Lock()
	before := e.observed
	e.observed = map[ban.Topic]bool{}
	for _, s := range scopes {
		e.observed[s.Topic] = s.Observe
	}
	e.mu.Unlock()
	if before == nil {
		return nil // the bans come next
	}
	var add []firewall.Ban
	for _, s := range scopes {
		if !s.Observe || before[s.Topic] {
			continue
		}
		for _, x := range e.o.ledger.Enforcement.InForce(s.Topic, mostNamed-len(add)) {
			if p, ok := x.Target.Prefix(); ok {
				add = append(add, firewall.Ban{Prefix: p, Topic: x.Topic, Until: x.Until, By: e.names(e.o.ledger.Enforcement.Origin(x.Topic, x.Target))})
			}
		}
	}
	if len(add) == 0 {
		return nil
	}
	return e.fw.Apply(ctx, add, nil)
}

// names gives those on whose word a ban rests, as [firewall.Ban] has them.
func (e *enforcer) names(o ledger.Origin) string {
	var names []string
	if o.Own {
		names = append(names, api.Here)
	}
	rules := e.o.ledger.Policy()
	for _, id := range o.Operators {
		name, ok := rules.Name(id)
		if !ok {
			name = id.String()
		}
		names = append(names, api.CounterName(name))
	}
	return strings.Join(names, ",")
}

// Operators implements [api.Firewall]: the traffic that observed bans met, by those on whose word they rest.
func (e *enforcer) Operators(ctx context.Context) map[ban.Topic][]control.OperatorCount {
	by, ok := e.fw.(firewall.ByOperator)
	if !ok {
		return nil
	}
	counters, err := by.Operators(ctx)
	if err != nil {
		return nil // a condition of Counters already
	}
	out := map[ban.Topic][]control.OperatorCount{}
	for topic, names := range counters {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			out[topic] = append(out[topic], control.OperatorCount{Name: name, Packets: names[name].Packets, Bytes: names[name].Bytes})
		}
	}
	return out
}

// mainOperator names one operator on whose word a ban rests, for programs that
// count by one name: this node before others, then the first of the names.
func (e *enforcer) mainOperator(topic ban.Topic, target ban.Target) string {
	name, _, _ := strings.Cut(e.names(e.o.ledger.Enforcement.Origin(topic, target)), ",")
	return name
}
