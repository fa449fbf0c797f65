package firewall

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"banmesh/internal/ban"
)

// Limits of [Ban.By].
const (
	maxNames = 8
	maxName  = 64
	// maxLabelled bounds the classes that tell operators apart; beyond it new
	// combinations count for the topic alone, so that no ban is refused.
	maxLabelled = 1_024
)

// operatorHead begins the names of operators' counters; the topic and a dot
// follow, which no topic has.
const operatorHead = "by_"

func operatorCounter(t ban.Topic, name string) string { return operatorHead + string(t) + "." + name }

// label gives [Ban.By] sorted, or "" where it is no list of names that the
// kernel can take for counters.
func label(by string) string {
	if by == "" {
		return ""
	}
	names := strings.Split(by, ",")
	for _, n := range names {
		ok := len(n) > 0 && len(n) <= maxName
		for i := range len(n) {
			c := n[i]
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			return ""
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return strings.Join(names[:min(len(names), maxNames)], ",")
}

// names gives the operators whose counters a class's bans in a topic raise.
func (c class) names(t ban.Topic) []string {
	i, ok := slices.BinarySearch(c.topics, t)
	if !ok || c.by == nil || c.by[i] == "" {
		return nil
	}
	return strings.Split(c.by[i], ",")
}

// Operators implements [ByOperator].
func (n *NFTables) Operators(ctx context.Context) (map[ban.Topic]map[string]Counter, error) {
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
func operatorsOf(all map[string]Counter) map[ban.Topic]map[string]Counter {
	out := make(map[ban.Topic]map[string]Counter)
	for key, c := range all {
		rest, ok := strings.CutPrefix(key, operatorHead)
		topic, name, dot := strings.Cut(rest, ".")
		if !ok || !dot {
			continue
		}
		t := ban.Topic(topic)
		if out[t] == nil {
			out[t] = make(map[string]Counter)
		}
		out[t][name] = c
	}
	return out
}

// Operators implements [ByOperator].
func (f *Fake) Operators(context.Context) (map[ban.Topic]map[string]Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[ban.Topic]map[string]Counter, len(f.operators))
	for t, by := range f.operators {
		out[t] = maps.Clone(by)
	}
	return out, f.usable()
}
