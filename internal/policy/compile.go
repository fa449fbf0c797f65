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

// group is a set of operators and how each is counted.
type group struct {
	name    string
	members map[ban.Operator][]seat
	follows []follow
	// simple says that nobody has more than one seat.
	simple bool
}

// settle is called when a group is complete.
func (g *group) settle() *group {
	g.simple = true
	for _, seats := range g.members {
		g.simple = g.simple && len(seats) == 1
	}
	return g
}

// seat says as whom an operator's claim is counted. Two claims that sit in one
// seat are one vote.
type seat struct {
	of     *operator
	weight int
}

// follow is a followed trust list.
type follow struct {
	of      *operator
	reached map[ban.Operator]bool // whose lists are read too
}

// seats counts the distinct votes that a group can give.
func (g *group) seats() int {
	if g == nil {
		return 0
	}
	distinct := map[*operator]bool{}
	for _, seats := range g.members {
		for _, s := range seats {
			distinct[s.of] = true
		}
	}
	return len(distinct)
}

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

func (c *compiler) group(name string, entries []string) {
	key := "groups." + name
	if !c.name(key, name) {
		return
	}
	if c.byName[name] != nil {
		c.fault(key, "an operator has this name already", "")
		return
	}
	g := &group{name: name, members: map[ban.Operator][]seat{}}
	direct := map[ban.Operator]bool{}
	for i, text := range entries {
		p := newParser(fmt.Sprintf("%s[%d]", key, i), text, operatorNames{c.Policy})
		m := p.member()
		if p.fault != nil {
			c.faults = append(c.faults, p.fault)
			continue
		}
		op := c.byName[m.name]
		if !m.follow {
			direct[op.id] = true
			g.members[op.id] = []seat{{op, op.weight}}
			continue
		}
		weight := op.weight
		if m.weight > 0 {
			weight = min(weight, m.weight)
		}
		c.follow(g, op, m, weight)
	}
	// Who is named counts as himself only, whoever else lists him.
	for id := range direct {
		op := c.operators[id]
		g.members[id] = []seat{{op, op.weight}}
	}
	c.groups[name] = g.settle()
}

// follow adds everyone whom op's list reaches, op included, in op's one seat.
func (c *compiler) follow(g *group, op *operator, m member, weight int) {
	f := follow{of: op, reached: map[ban.Operator]bool{}}
	in := map[ban.Operator]bool{}
	add := func(o ban.Operator) {
		if !in[o] && len(in) < m.most+1 {
			in[o] = true
			g.members[o] = append(g.members[o], seat{op, weight})
		}
	}
	add(op.id)
	list := c.trust[op.id]
	for _, o := range list.Operators {
		add(o)
	}
	if m.depth > 1 {
		for _, next := range list.Follows {
			if len(f.reached) == maxMost {
				break
			}
			f.reached[next] = true
			add(next)
			for _, o := range c.trust[next].Operators {
				add(o)
			}
		}
	}
	g.follows = append(g.follows, f)
}

func (c *compiler) topic(name string, s TopicSource) {
	key := "topics." + name
	topic, err := ban.ParseTopic(name)
	if err != nil {
		c.fault(key, err.Error(), "")
		return
	}
	r := &rules{topic: topic, ttl: DefaultTTL}
	rule := func(field, text string) *node {
		if strings.TrimSpace(text) == "" {
			return nil
		}
		p := newParser(key+"."+field, text, ruleNames{c.Policy})
		n := p.rule()
		if p.fault != nil {
			c.faults = append(c.faults, p.fault)
		} else if p.warning != nil {
			c.warnings = append(c.warnings, p.warning)
		}
		return n
	}
	r.ban, r.watch, r.dispute = rule("ban", s.Ban), rule("watch", s.Watch), rule("dispute", s.Dispute)
	r.everyone = merge("", slices.Concat(r.ban.groups(), r.watch.groups(), r.dispute.groups()))
	r.confirm = &node{kind: kindQuorum, need: 2, group: r.everyone}
	p := newParser(key+".require", s.Require, ruleNames{c.Policy})
	r.evidence = p.evidence()
	if p.fault != nil {
		c.faults = append(c.faults, p.fault)
	}
	if s.TTL != nil {
		r.ttl = s.TTL.Duration()
	}
	r.confirmedTTL = max(r.ttl, DefaultConfirmedTTL)
	if s.ConfirmedTTL != nil {
		r.confirmedTTL = s.ConfirmedTTL.Duration()
	}
	switch {
	case r.ttl <= 0 || r.ttl > MaxTTL:
		c.fault(key+".ttl", "a ban lasts more than 0s and at most "+span.Format(MaxTTL), "")
	case r.confirmedTTL < r.ttl || r.confirmedTTL > MaxTTL:
		c.fault(key+".confirmed_ttl", "it is at least ttl and at most "+span.Format(MaxTTL), "")
	}
	var bad string
	if r.prefix4, r.prefix6, bad = parsePrefixFloors(s.Prefix); bad != "" {
		c.fault(key+".prefix", fmt.Sprintf("%q is not a prefix limit", clip(bad)), "write \"v4/24\" (8 to 32) or \"v6/48\" (19 to 128)")
	}
	if r.limits, bad = s.Limits.limits(); bad != "" {
		c.fault(key+".limits."+bad, "the number is out of bounds", "")
	}
	c.topics[topic] = r
}

// operatorNames resolves what group members may name.
type operatorNames struct{ p *Policy }

func (n operatorNames) resolve([]string) *group { return nil }
func (n operatorNames) known(s string) bool     { return n.p.byName[s] != nil }
func (n operatorNames) all() []string           { return slices.Sorted(maps.Keys(n.p.byName)) }

// ruleNames resolves what rules may name: groups and operators.
type ruleNames struct{ p *Policy }

func (n ruleNames) known(s string) bool { return n.p.groups[s] != nil || n.p.byName[s] != nil }

func (n ruleNames) all() []string {
	return append(slices.Sorted(maps.Keys(n.p.groups)), slices.Sorted(maps.Keys(n.p.byName))...)
}

func (n ruleNames) resolve(of []string) *group {
	if len(of) == 1 && n.p.groups[of[0]] != nil {
		return n.p.groups[of[0]]
	}
	var groups []*group
	for _, name := range of {
		if op := n.p.byName[name]; op != nil {
			groups = append(groups, &group{members: map[ban.Operator][]seat{op.id: {{op, op.weight}}}})
		} else if g := n.p.groups[name]; g != nil {
			groups = append(groups, g)
		}
	}
	return merge(strings.Join(of, ", "), groups)
}

// groups lists the groups that an expression names.
func (n *node) groups() (list []*group) {
	n.each(func(n *node) {
		if n.group != nil {
			list = append(list, n.group)
		}
	})
	return list
}

// merge unites groups. Who sits in a seat of his own in one of them sits there
// in the union.
func merge(name string, groups []*group) *group {
	union := &group{name: name, members: map[ban.Operator][]seat{}}
	for _, g := range groups {
		union.follows = append(union.follows, g.follows...)
		for o, seats := range g.members {
			for _, s := range seats {
				if !slices.ContainsFunc(union.members[o], func(t seat) bool { return t.of == s.of }) {
					union.members[o] = append(union.members[o], s)
				}
			}
		}
	}
	for o, seats := range union.members {
		for _, s := range seats {
			if s.of.id == o {
				union.members[o] = []seat{s}
				break
			}
		}
	}
	return union.settle()
}
