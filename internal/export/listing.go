package export

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A listing is the part of the bans that one answer gives.
type listing struct {
	entries []Entry
	total   int    // how many there are without limit and minprefix
	name    string // of the table, set or list on the reader's machine
	only    string // "4" or "6" where one family alone was asked for
	now     time.Time
}

// selection says which of the bans are given.
type selection struct {
	limit int // 0: all
	// Prefixes of IPv4 and IPv6 shorter than that are left out.
	shortest4, shortest6 int
}

// maxLimit is more than any table holds.
const maxLimit = 1 << 24

// readSelection reads limit=N and minprefix=N4[,N6].
func readSelection(q url.Values) (s selection, err error) {
	if q.Has("limit") {
		if s.limit, err = strconv.Atoi(q.Get("limit")); err != nil || s.limit < 1 || s.limit > maxLimit {
			return s, fmt.Errorf("limit: %.32q is no number from 1 to %d", q.Get("limit"), maxLimit)
		}
	}
	if q.Has("minprefix") {
		four, six, both := strings.Cut(q.Get("minprefix"), ",")
		s.shortest4, err = strconv.Atoi(four)
		if err != nil || s.shortest4 < 0 || s.shortest4 > 32 {
			return s, fmt.Errorf("minprefix: %.32q is no prefix length from 0 to 32", four)
		}
		if both {
			s.shortest6, err = strconv.Atoi(six)
			if err != nil || s.shortest6 < 0 || s.shortest6 > 128 {
				return s, fmt.Errorf("minprefix: %.32q is no prefix length from 0 to 128", six)
			}
		}
	}
	return s, nil
}

// wide says that a target is a prefix that the selection leaves out.
func (s selection) wide(t ban.Target) bool {
	p, ok := t.Prefix()
	if !ok {
		return false
	}
	if p.Addr().Is4() {
		return p.Bits() < s.shortest4
	}
	return p.Bits() < s.shortest6
}

// cut gives at most as many entries as the limit says, in the order that they
// had: bans made here before others, then those that last longest.
func (s selection) cut(entries []Entry) []Entry {
	if s.limit == 0 || len(entries) <= s.limit {
		return entries
	}
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &entries[i], &entries[j]
		if a.Here != b.Here {
			if a.Here {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Until.Compare(a.Until), cmp.Compare(i, j))
	})
	order = order[:s.limit]
	slices.Sort(order)
	kept := make([]Entry, 0, s.limit)
	for _, i := range order {
		kept = append(kept, entries[i])
	}
	return kept
}

// reduce gives each address or prefix once, with its latest end, in the order of
// addresses, and leaves out those that a wider one covers for as long.
func reduce(entries []Entry) []Entry {
	type item struct {
		prefix netip.Prefix
		e      Entry
	}
	items := make([]item, 0, len(entries))
	for _, e := range entries {
		if p, ok := e.Target.Prefix(); ok {
			items = append(items, item{p, e})
		}
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()),
			b.e.Until.Compare(a.e.Until), cmp.Compare(a.e.Topic, b.e.Topic))
	})
	var kept []Entry
	var around []item // prefixes of which each contains the next
	for _, x := range items {
		for len(around) > 0 && !around[len(around)-1].prefix.Contains(x.prefix.Addr()) {
			around = around[:len(around)-1]
		}
		if n := len(kept); n > 0 && kept[n-1].Target == x.e.Target {
			kept[n-1].Here = kept[n-1].Here || x.e.Here
			continue
		}
		if slices.ContainsFunc(around, func(w item) bool { return !w.e.Until.Before(x.e.Until) }) {
			continue
		}
		around = append(around, x)
		kept = append(kept, x.e)
	}
	return kept
}

// family is "4" or "6".
func (l *listing) family(i int) string {
	if p, ok := l.entries[i].Target.Prefix(); ok && p.Addr().Is4() {
		return "4"
	}
	return "6"
}

func (l *listing) count(family string) (n int) {
	for i := range l.entries {
		if l.family(i) == family {
			n++
		}
	}
	return n
}

// rest gives the seconds until an entry ends, at least one.
func (l *listing) rest(i int) int64 {
	return max(1, int64((l.entries[i].Until.Sub(l.now)+time.Second-1)/time.Second))
}

// listName is a name that nft, ipset and RouterOS take without quotes.
var listName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,23}$`)

func readListName(q url.Values, otherwise string) (string, error) {
	if otherwise == "" || !q.Has("name") {
		return otherwise, nil
	}
	if name := q.Get("name"); listName.MatchString(name) {
		return name, nil
	}
	return "", fmt.Errorf("name: %.32q cannot name a list", q.Get("name"))
}
