package tools

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// sets gives every set of this machine and how many entries it holds; 0 where
// the tool does not say.
func (s *IPSet) sets(ctx context.Context) (map[string]int, error) {
	text, err := s.output(ctx, "ipset", "list", "-terse")
	if err != nil {
		return nil, err
	}
	out := make(map[string]int)
	name := ""
	for line := range strings.Lines(text) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "Name":
			name = value
			out[name] = 0
		case "Number of entries":
			if n, err := strconv.Atoi(value); err == nil {
				out[name] = n
			}
		}
	}
	return out, nil
}

// endSlack is how long after its end ipset may count an entry still, and how
// exactly its clock and ours agree, in seconds.
const endSlack = 10

// A setKey names a pair of topic and kind that has a set of its own; topic ""
// is the never-ban list's.
type setKey struct {
	topic      ban.Topic
	four, host bool
}

func keyOf(k firewall.Key) setKey {
	return setKey{k.Topic, k.Prefix.Addr().Is4(), k.Prefix.IsSingleIP()}
}

// name is the set's.
func (s *IPSet) name(k setKey) string {
	switch {
	case k.topic != "":
		return s.setName(k.topic, k.four, k.host)
	case k.four:
		return s.neverName("4")
	}
	return s.neverName("6")
}

// A setWant is the wanted contents of one set: the entries, each with its end,
// and those that may still be there.
type setWant struct {
	must map[netip.Prefix]desired.Second
	may  map[netip.Prefix]bool
}

// wants gives the wanted contents of every set.
func (s *IPSet) wants() map[setKey]*setWant {
	all := make(map[setKey]*setWant)
	of := func(k setKey) *setWant {
		if all[k] == nil {
			all[k] = &setWant{make(map[netip.Prefix]desired.Second), make(map[netip.Prefix]bool)}
		}
		return all[k]
	}
	for _, x := range s.config.Scopes {
		for _, four := range []bool{true, false} {
			of(setKey{x.Topic, four, true})
			of(setKey{x.Topic, four, false})
		}
	}
	now := desired.SecondOf(s.now())
	for k, until := range s.wanted {
		w := of(keyOf(k))
		for _, p := range halves(k.Prefix) {
			if until > now+endSlack && !s.pending[k] {
				w.must[p] = until
			} else {
				w.may[p] = true
			}
		}
	}
	maps.DeleteFunc(s.lapsed, func(_ firewall.Key, at desired.Second) bool { return at+endSlack < now })
	for _, keys := range []iter.Seq[firewall.Key]{maps.Keys(s.pending), maps.Keys(s.lapsed)} {
		for k := range keys {
			for _, p := range halves(k.Prefix) {
				of(keyOf(k)).may[p] = true
			}
		}
	}
	of(setKey{four: true})
	of(setKey{})
	for _, p := range s.config.Never {
		for _, q := range halves(p) {
			of(setKey{four: p.Addr().Is4()}).must[q] = desired.Never
		}
	}
	return all
}

// most is how many entries the set may have.
func (w *setWant) most() int {
	n := len(w.must)
	for p := range w.may {
		if _, ok := w.must[p]; !ok {
			n++
		}
	}
	return n
}

const (
	// compareEvery is how often sets are compared entry by entry, at a process
	// each, and compareMost up to which size; between they are counted.
	compareEvery = 5 * time.Minute
	compareMost  = 4_096
)

// setsDiffer compares the sets with the wanted bans: by counting, and now and
// then entry by entry.
func (s *IPSet) setsDiffer(ctx context.Context) (what []string, err error) {
	there, err := s.sets(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	whole := now.Sub(s.compared).Abs() >= compareEvery
	if whole {
		s.compared = now
	}
	all := s.wants()
	keys := slices.SortedFunc(maps.Keys(all), func(a, b setKey) int { return strings.Compare(s.name(a), s.name(b)) })
	for _, k := range keys {
		w, name := all[k], s.name(k)
		n, ok := there[name]
		switch {
		case !ok:
			what = append(what, "ipset "+name+" was gone")
		case n < len(w.must):
			what = append(what, fmt.Sprintf("%d entries were gone from ipset %s", len(w.must)-n, name))
		case n > w.most():
			what = append(what, fmt.Sprintf("%d entries of ipset %s were not wanted", n-w.most(), name))
		case whole && n > 0 && n <= compareMost:
			other, err := s.compareSet(ctx, name, w)
			if err != nil {
				return what, err
			}
			if other > 0 {
				what = append(what, fmt.Sprintf("%d entries of ipset %s were others", other, name))
			}
		}
	}
	return what, nil
}

// compareSet reads a set and gives how many of its entries are not as wanted.
func (s *IPSet) compareSet(ctx context.Context, name string, w *setWant) (other int, err error) {
	text, err := s.output(ctx, "ipset", "save", name)
	if err != nil {
		return 0, err
	}
	seen := 0
	for line := range strings.Lines(text) {
		p, left, ok := parseEntry(line)
		if !ok {
			continue
		}
		until, must := w.must[p]
		switch {
		case must && s.endsAsWanted(left, until):
			seen++
		case must || !w.may[p]:
			other++
		}
	}
	return max(other, len(w.must)-seen), nil
}

// parseEntry reads a line "add SET ADDRESS[/BITS] [timeout SECONDS]" of ipset
// save; without a timeout, and with 0, the entry has no end.
func parseEntry(line string) (p netip.Prefix, left int64, ok bool) {
	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "add" {
		return p, 0, false
	}
	p, err := netip.ParsePrefix(words[2])
	if err != nil {
		a, err := netip.ParseAddr(words[2])
		if err != nil {
			return p, 0, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if i := slices.Index(words, "timeout"); i > 0 && i+1 < len(words) {
		if left, err = strconv.ParseInt(words[i+1], 10, 64); err != nil || left < 0 {
			return p, 0, false
		}
	}
	return p, left, true
}

// endsAsWanted says whether an entry ends about when it ought to. One whose end
// is beyond ipset's longest is renewed.
func (s *IPSet) endsAsWanted(left int64, until desired.Second) bool {
	if until == desired.Never {
		return left == 0
	}
	want := int64(until.Time().Sub(s.now()) / time.Second)
	if want >= ipsetMaxTimeout-2*int64(ipsetRenew/time.Second) {
		return left > 0
	}
	return left > 0 && max(left-want, want-left) <= 60+want/1000
}
