package desired

import (
	"container/heap"
	"net/netip"
	"slices"
	"strings"

	"banmesh/internal/ban"
)

// A Part is one topic of a prefix that is banned in several.
type Part struct {
	Topic ban.Topic
	By    string
	Until Second
}

// PartsOf gives the topics of a prefix; the caller must not keep the result.
func (s *State) PartsOf(p netip.Prefix, v Slot) []Part {
	if v.Class == 0 {
		return nil
	}
	if more, ok := s.parts[p]; ok {
		return more
	}
	one := Part{Topic: s.Classes[v.Class].Topics[0], Until: v.Until}
	if by := s.Classes[v.Class].by; by != nil {
		one.By = by[0]
	}
	return []Part{one}
}

// Add makes a ban wanted and says whether the kernel's element changes.
// by is whose word it rests on, as [label] gives it.
func (s *State) Add(p netip.Prefix, topic ban.Topic, by string, until, now Second) (changed bool, err error) {
	old := s.Get(p)
	if _, several := s.parts[p]; !several {
		if old.Class == 0 || (len(s.Classes[old.Class].Topics) == 1 && s.Classes[old.Class].Topics[0] == topic) {
			if l := &s.last; l.class == 0 || l.topic != topic || l.by != by {
				c, err := s.intern([]ban.Topic{topic}, []string{by})
				if err != nil {
					return false, err
				}
				l.topic, l.by, l.class = topic, by, c
			}
			v := Slot{until, s.last.class}
			if v != old {
				s.put(p, old, v)
			}
			return v != old, nil
		}
	}
	parts := slices.Clone(s.PartsOf(p, old))
	if i := slices.IndexFunc(parts, func(q Part) bool { return q.Topic == topic }); i >= 0 {
		parts[i].Until, parts[i].By = until, by
	} else {
		parts = append(parts, Part{topic, by, until})
	}
	return s.setParts(p, old, parts, now)
}

// Remove makes a ban unwanted and says whether the kernel's element changes.
func (s *State) Remove(p netip.Prefix, topic ban.Topic, now Second) (changed bool, err error) {
	old := s.Get(p)
	parts := slices.Clone(s.PartsOf(p, old))
	left := slices.DeleteFunc(slices.Clone(parts), func(q Part) bool { return q.Topic == topic })
	if len(left) == len(parts) {
		return false, nil
	}
	return s.setParts(p, old, left, now)
}

// setParts gives a prefix its topics, of which those that have ended are left
// out.
func (s *State) setParts(p netip.Prefix, old Slot, parts []Part, now Second) (changed bool, err error) {
	parts = slices.DeleteFunc(parts, func(q Part) bool { return q.Until <= now })
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(string(a.Topic), string(b.Topic)) })
	var v Slot
	if len(parts) > 0 {
		topics, by := make([]ban.Topic, len(parts)), make([]string, len(parts))
		first := Never
		for i, q := range parts {
			topics[i], by[i] = q.Topic, q.By
			v.Until = max(v.Until, q.Until)
			first = min(first, q.Until)
		}
		if v.Class, err = s.intern(topics, by); err != nil {
			return false, err
		}
		if first < v.Until {
			heap.Push(&s.lapses, lapse{first, p})
		}
	}
	if len(parts) > 1 {
		s.parts[p] = parts
	} else {
		delete(s.parts, p)
	}
	if v != old {
		s.put(p, old, v)
	}
	return v != old, nil
}

// Lapse ends the parts that are over of prefixes that stay banned otherwise,
// and gives those prefixes: the kernel's own timeouts end whole elements only.
func (s *State) Lapse(now Second) (changed []netip.Prefix, err error) {
	for len(s.lapses) > 0 && s.lapses[0].at <= now {
		p := heap.Pop(&s.lapses).(lapse).prefix
		parts, ok := s.parts[p]
		if !ok {
			continue
		}
		did, err := s.setParts(p, s.Get(p), slices.Clone(parts), now)
		if err != nil {
			return changed, err
		}
		if did {
			changed = append(changed, p)
		}
	}
	return changed, nil
}

type lapse struct {
	at     Second
	prefix netip.Prefix
}

// lapses is a heap, the earliest first. It may hold entries that no longer matter.
type lapses []lapse

func (l lapses) Len() int           { return len(l) }
func (l lapses) Less(i, j int) bool { return l[i].at < l[j].at }
func (l lapses) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *lapses) Push(x any)        { *l = append(*l, x.(lapse)) }
func (l *lapses) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// Forget drops every ban of topics that no scope knows any more.
func (s *State) Forget(known func(ban.Topic) bool, now Second) (changed []netip.Prefix, err error) {
	var stale []netip.Prefix
	s.Each(func(p netip.Prefix, v Slot) bool {
		if !slices.ContainsFunc(s.Classes[v.Class].Topics, func(t ban.Topic) bool { return !known(t) }) {
			return true
		}
		stale = append(stale, p)
		return true
	})
	for _, p := range stale {
		old := s.Get(p)
		left := slices.DeleteFunc(slices.Clone(s.PartsOf(p, old)), func(q Part) bool { return !known(q.Topic) })
		if _, err := s.setParts(p, old, left, now); err != nil {
			return changed, err
		}
		changed = append(changed, p)
	}
	return changed, nil
}
