package settings

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
	"banmesh/internal/policy"
	"banmesh/internal/wire"
)

// trusting is the part of the settings that comes from published trust lists.
type trusting struct {
	lists policy.Trust
	// reached names operators that only a followed list names: "dave, by way of
	// alice". The names are foreign, but plain text.
	reached map[ban.Operator]string
}

// WithTrust compiles the same configuration against trust lists.
func (s *Settings) WithTrust(held []federation.TrustList) (*Settings, error) {
	next := *s
	next.trusting = trusting{policy.Trust{}, map[ban.Operator]string{}}
	for _, l := range held {
		next.trusting.lists[l.Operator] = policyList(l)
	}
	p, err := s.policy.WithTrust(next.trusting.lists)
	if err != nil {
		return nil, fmt.Errorf("taking over trust lists: %w", err)
	}
	next.policy = p
	for _, l := range held {
		by, ok := p.Name(l.Operator)
		if !ok {
			by = l.Operator.String()
		}
		for _, o := range l.Trusted {
			if _, named := p.Name(o.Operator); !named && next.trusting.reached[o.Operator] == "" {
				next.trusting.reached[o.Operator] = fmt.Sprintf("%s, by way of %s", cmp.Or(o.Name, o.Operator.String()), by)
			}
		}
	}
	if err := next.setTopics(); err != nil {
		return nil, err
	}
	return &next, nil
}

// policyList orders a list by weight: a follow may take only the first few.
func policyList(l federation.TrustList) (out policy.TrustList) {
	trusted := slices.Clone(l.Trusted)
	slices.SortStableFunc(trusted, func(a, b wire.Trusted) int { return cmp.Compare(b.Weight, a.Weight) })
	for _, o := range trusted {
		out.Operators = append(out.Operators, o.Operator)
		if o.Follows {
			out.Follows = append(out.Follows, o.Operator)
		}
	}
	return out
}

// NameOf names an operator: as the configuration does, as the list does by
// which it is reached, or by its identity.
func (s *Settings) NameOf(o ban.Operator) string {
	if name, ok := s.policy.Name(o); ok {
		return name
	}
	return cmp.Or(s.trusting.reached[o], o.String())
}

// SameTrust says whether both settings rest on the same trust lists.
func (s *Settings) SameTrust(other *Settings) bool {
	return reflect.DeepEqual(s.trusting, other.trusting)
}

// Reached counts the operators that only a followed trust list names.
func (s *Settings) Reached() int { return len(s.trusting.reached) }
