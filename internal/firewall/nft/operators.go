package nft

import (
	"context"
	"errors"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// operatorHead begins the names of operators' counters; the topic and a dot
// follow, which no topic has.
const operatorHead = "by_"

func operatorCounter(t ban.Topic, name string) string { return operatorHead + string(t) + "." + name }

// Operators implements [ByOperator].
func (n *Firewall) Operators(ctx context.Context) (map[ban.Topic]map[string]firewall.Counter, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(n.usable(), ctx.Err()); err != nil {
		return nil, err
	}
	all, err := n.k.counters()
	if err != nil {
		return nil, n.explain("reading counters", err)
	}
	return operatorsOf(all), nil
}

// operatorsOf sorts operators' counters by topic.
func operatorsOf(all map[string]firewall.Counter) map[ban.Topic]map[string]firewall.Counter {
	out := make(map[ban.Topic]map[string]firewall.Counter)
	for key, c := range all {
		rest, ok := strings.CutPrefix(key, operatorHead)
		topic, name, dot := strings.Cut(rest, ".")
		if !ok || !dot {
			continue
		}
		t := ban.Topic(topic)
		if out[t] == nil {
			out[t] = make(map[string]firewall.Counter)
		}
		out[t][name] = c
	}
	return out
}
