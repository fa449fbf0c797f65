package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/internal/strict"
)

// compiler turns a [Source] into a [Policy] and collects all faults.
type compiler struct {
	*Policy
	faults strict.Faults
}

// Compile checks a source and builds its policy. It fails with [strict.Faults], all
// of them at once. trust holds the lists that followed operators publish; one
// that is missing is empty.
func Compile(s Source, trust Trust) (*Policy, error) {
	c := &compiler{Policy: &Policy{
		source:    s,
		operators: map[ban.Operator]*operator{},
		byName:    map[string]*operator{},
		topics:    map[ban.Topic]*rules{},
		groups:    map[string]*group{},
		trust:     trust,
	}}
	if s.Self != nil {
		c.self = *s.Self
	}
	for _, name := range slices.Sorted(maps.Keys(s.Operators)) {
		c.operator(name, s.Operators[name])
	}
	if len(s.Operators) > MaxOperators {
		c.fault("operators", fmt.Sprintf("at most %d operators", MaxOperators), "follow a relay operator instead")
	}
	everyone := &group{name: "everyone", members: map[ban.Operator][]seat{}}
	for id, op := range c.operators {
		everyone.members[id] = []seat{{op, op.weight}}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		c.group(name, s.Groups[name])
	}
	c.groups["everyone"] = everyone.settle()
	for _, name := range slices.Sorted(maps.Keys(s.Topics)) {
		c.topic(name, s.Topics[name])
	}
	c.imports(s.Imports)
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return c.Policy, nil
}

func (c *compiler) fault(key, message, hint string) {
	c.faults = append(c.faults, &strict.Fault{Path: key, Text: message, Hint: hint})
}

func (c *compiler) name(key, name string) bool {
	switch {
	case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f || !isWordByte(byte(r)) }):
		c.fault(key, fmt.Sprintf("%q cannot be a name", clip(name)), "use letters, digits, '-', '_' and '.'")
	case name[0] >= '0' && name[0] <= '9':
		c.fault(key, fmt.Sprintf("%q cannot be a name: it begins with a digit", clip(name)), "")
	case slices.Contains(reserved, name):
		c.fault(key, fmt.Sprintf("%q cannot be a name: it is a word of the rules", name), "")
	default:
		return true
	}
	return false
}

func (c *compiler) operator(name string, s OperatorSource) {
	key := "operators." + name
	if !c.name(key, name) {
		return
	}
	id, err := ban.ParseOperator(s.ID)
	if err != nil {
		c.fault(key+".id", err.Error(), "`agent peers add` writes it; an operator's identity has 26 characters, shown by `agent key show`")
		return
	}
	op := &operator{name: name, id: id, weight: DefaultWeight}
	if other := c.operators[id]; other != nil {
		c.fault(key+".id", fmt.Sprintf("this is %s already: one operator is one vote", other.name), "remove one of the two")
		return
	}
	if s.Weight != 0 {
		op.weight = s.Weight
	}
	if op.weight < 1 || op.weight > MaxWeight {
		c.fault(key+".weight", fmt.Sprintf("a weight is a number from 1 to %d", MaxWeight), "")
	}
	if !s.Since.IsZero() {
		probation := DefaultProbation
		if s.Probation != nil {
			probation = s.Probation.Duration()
		}
		if probation < 0 || probation > MaxProbation {
			c.fault(key+".probation", "a probation lasts at most "+span.Format(MaxProbation), "")
			probation = 0
		}
		op.probation = s.Since.Add(probation)
	}
	c.operators[id], c.byName[name] = op, op
}

func (c *compiler) topic(name string, s TopicSource) {
	key := "topics." + name
	topic, err := ban.ParseTopic(name)
	if err != nil {
		c.fault(key, err.Error(), "")
		return
	}
	r := &rules{topic: topic, accepted: s.Accept}
	rule := func(field, text string) *node {
		if strings.TrimSpace(text) == "" {
			return nil
		}
		p := newParser(key+"."+field, text, ruleNames{c.Policy})
		n := p.rule()
		c.collect(p)
		return n
	}
	r.ban, r.watch, r.suspect, r.dispute = rule("ban", s.Ban), rule("watch", s.Watch), rule("suspect", s.Suspect), rule("dispute", s.Dispute)
	for field, n := range map[string]*node{"ban": r.ban, "dispute": r.dispute} {
		n.each(func(n *node) {
			if n.weak {
				c.fault(key+"."+field, fmt.Sprintf("%q: weak evidence is watched, it never bans", n.text), "move it into `watch`")
			}
		})
	}
	r.everyone = merge("", slices.Concat(r.ban.groups(), r.watch.groups(), r.suspect.groups(), r.dispute.groups()))
	p := newParser(key+".require", s.Require, ruleNames{c.Policy})
	r.require = p.require()
	c.collect(p)
	p = newParser(key+".ttl", s.TTL, ruleNames{c.Policy})
	r.ttl = p.ttls()
	c.collect(p)
	var bad string
	if r.prefix4, r.prefix6, bad = parsePrefixFloors(s.Prefix); bad != "" {
		c.fault(key+".prefix", fmt.Sprintf("%q is not a prefix limit", clip(bad)), "write \"v4/24\" (8 to 32) or \"v6/48\" (19 to 128)")
	}
	if r.limits, bad = s.Limits.limits(); bad != "" {
		c.fault(key+".limits."+bad, "the number is out of bounds", "")
	}
	c.topics[topic] = r
}

// collect takes a parser's fault, or its warning.
func (c *compiler) collect(p *parser) {
	if p.fault != nil {
		c.faults = append(c.faults, p.fault)
	} else if p.warning != nil {
		c.warnings = append(c.warnings, p.warning)
	}
}
