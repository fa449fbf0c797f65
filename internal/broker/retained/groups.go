package retained

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

func groupOf(owner string) string {
	name, _, _ := strings.Cut(owner, "/")
	return name
}

// standing is how much the store holds, for a message of an owner.
func (s *Store) standing(owner string) Standing {
	st := Standing{Owner: s.owners[owner], All: s.total}
	if g := s.groups[groupOf(owner)]; g != nil {
		st.Group, st.Age = g.Usage, max(0, s.Uptime()-g.since)
	}
	return st
}

// Standing gives how much the store holds, as a judge is told it.
func (s *Store) Standing(owner string) Standing {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.standing(owner)
}

// replace changes memory alone.
func (s *Store) replace(topic string, m *Message) {
	s.changes++
	old, _ := s.topics.Get(topic)
	if old != nil {
		s.total = s.total.plus(old, -1)
		s.sum -= uint64(old.sum)
		if u := s.owners[old.Owner].plus(old, -1); u.Messages > 0 {
			s.owners[old.Owner] = u
		} else {
			delete(s.owners, old.Owner)
		}
	}
	if m == nil {
		s.topics.Delete(topic)
	} else {
		s.topics.Set(topic, m)
		s.total = s.total.plus(m, 1)
		s.owners[m.Owner] = s.owners[m.Owner].plus(m, 1)
		s.joinGroup(m)
		m.sum = m.checksum()
		s.sum += uint64(m.sum)
	}
	if old == nil {
		return
	}
	name := groupOf(old.Owner)
	g := s.groups[name]
	if g.Usage = g.plus(old, -1); g.Messages == 0 {
		delete(s.groups, name)
	}
}

// joinGroup counts a message in its owner's group, whose age it carries.
func (s *Store) joinGroup(m *Message) {
	name := groupOf(m.Owner)
	g := s.groups[name]
	if g == nil {
		g = &group{since: m.Heard}
		if m.stored {
			g.since = m.since
		}
		s.groups[name] = g
		if len(s.newest) > 2*len(s.groups)+1024 {
			s.newest = slices.DeleteFunc(s.newest, func(n string) bool { return s.groups[n] == nil })
		}
		s.newest = append(s.newest, name)
	}
	m.since = g.since
	g.Usage = g.plus(m, 1)
}

// Newest gives the groups that came last, the last first, until more says that
// it has enough.
func (s *Store) Newest(more func(group string, u Usage, age time.Duration) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Uptime()
	for i := len(s.newest) - 1; i >= 0; i-- {
		name := s.newest[i]
		g := s.groups[name]
		if g == nil {
			if i == len(s.newest)-1 {
				s.newest = s.newest[:i]
			}
			continue
		}
		if !more(name, g.Usage, max(0, now-g.since)) {
			return
		}
	}
}

// A Named is how much the store holds of a group.
type Named struct {
	Name string
	Usage
}

// Largest gives the groups with the most bytes, the largest first and at most so
// many, the sum of the others, and how many groups there are.
func (s *Store) Largest(most int) (list []Named, rest Usage, count int) {
	s.mu.RLock()
	all := make([]Named, 0, len(s.groups))
	for name, g := range s.groups {
		all = append(all, Named{name, g.Usage})
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b Named) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name)) })
	list = all[:min(len(all), max(most, 0))]
	for _, x := range all[len(list):] {
		rest.Messages, rest.Bytes = rest.Messages+x.Messages, rest.Bytes+x.Bytes
	}
	return list, rest, len(all)
}
