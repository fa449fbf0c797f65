package tools

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"

	"banmesh/internal/ban"
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

// setsDiffer compares the sets with the wanted bans by counting.
func (s *IPSet) setsDiffer(ctx context.Context) (what []string, err error) {
	there, err := s.sets(ctx)
	if err != nil {
		return nil, err
	}
	type key struct {
		topic      ban.Topic
		four, host bool
	}
	now := desired.SecondOf(s.now())
	least, most := make(map[key]int), make(map[key]int)
	for k, until := range s.wanted {
		at, n := key{k.Topic, k.Prefix.Addr().Is4(), k.Prefix.IsSingleIP()}, len(halves(k.Prefix))
		most[at] += n
		if until > now+endSlack && !s.pending[k] {
			least[at] += n
		}
	}
	for k := range s.pending {
		most[key{k.Topic, k.Prefix.Addr().Is4(), k.Prefix.IsSingleIP()}] += len(halves(k.Prefix))
	}
	for k, at := range s.lapsed {
		if at+endSlack < now {
			delete(s.lapsed, k)
			continue
		}
		most[key{k.Topic, k.Prefix.Addr().Is4(), k.Prefix.IsSingleIP()}] += len(halves(k.Prefix))
	}
	judge := func(name string, least, most int) {
		switch n, ok := there[name]; {
		case !ok:
			what = append(what, "ipset "+name+" was gone")
		case n < least:
			what = append(what, fmt.Sprintf("%d entries were gone from ipset %s", least-n, name))
		case n > most:
			what = append(what, fmt.Sprintf("%d entries of ipset %s were not wanted", n-most, name))
		}
	}
	for _, x := range s.config.Scopes {
		for i := range families {
			for _, host := range []bool{true, false} {
				at := key{x.Topic, i == 0, host}
				judge(s.setName(x.Topic, i == 0, host), least[at], most[at])
			}
		}
	}
	for i, f := range families {
		never := make(map[netip.Prefix]bool)
		for _, p := range s.config.Never {
			for _, q := range halves(p) {
				never[q] = p.Addr().Is4() == (i == 0)
			}
		}
		maps.DeleteFunc(never, func(_ netip.Prefix, here bool) bool { return !here })
		judge(s.neverName(f.suffix), len(never), len(never))
	}
	return what, nil
}
