package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"banmesh/internal/ban"
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

// operatorNames resolves the names that a group may have: operators.
type operatorNames struct{ p *Policy }

func (n operatorNames) resolve([]string) *group { return nil }
func (n operatorNames) known(s string) bool     { return n.p.byName[s] != nil }
func (n operatorNames) all() []string           { return slices.Sorted(maps.Keys(n.p.byName)) }

// ruleNames resolves the names in rules: groups and operators.
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
