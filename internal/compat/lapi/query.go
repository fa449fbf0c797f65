package lapi

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
)

// page is which part of a list is asked for.
type page struct {
	limit, offset int
	idGreater     int64
	// around is the address or range that decisions must contain, or, with
	// inside, lie within; zero for none.
	around netip.Prefix
	inside bool
}

func (p page) cut(list []decision) []decision {
	list = list[min(p.offset, len(list)):]
	if p.limit > 0 {
		list = list[:min(p.limit, len(list))]
	}
	return list
}

// maxQuery bounds the values of one parameter.
const maxQuery = 256

// readQuery reads the parameters of both lists. Unknown ones are ignored:
// clients of several ages send them.
func readQuery(q url.Values, topics []ban.Topic) (f filter, p page, err error) {
	f = filter{topics: topics, ip: true, wide: true, value: q.Get("value")}
	scopes := list(q, "scopes")
	if len(scopes) == 0 {
		scopes = list(q, "scope")
	}
	if len(scopes) > 0 {
		f.ip = slices.ContainsFunc(scopes, func(s string) bool { return strings.EqualFold(s, "ip") })
		f.wide = slices.ContainsFunc(scopes, func(s string) bool { return strings.EqualFold(s, "range") })
	}
	// There are no others: a bouncer that asks for captchas gets none.
	f.nothing = q.Has("type") && q.Get("type") != "" && q.Get("type") != "ban"
	f.origins = list(q, "origins")
	f.containing = list(q, "scenarios_containing") // ours are of lower case
	f.excluding = list(q, "scenarios_not_containing")
	for _, in := range [][]string{f.containing, f.excluding} {
		for i := range in {
			in[i] = strings.ToLower(in[i])
		}
	}
	if n := max(len(f.origins), len(f.containing), len(f.excluding)); n > maxQuery {
		return f, p, fmt.Errorf("at most %d values of a parameter", maxQuery)
	}
	if p.around, err = around(q); err != nil {
		return f, p, err
	}
	p.inside = q.Get("contains") == "false"
	var limit, offset int64
	for name, into := range map[string]*int64{"limit": &limit, "offset": &offset, "id_gt": &p.idGreater} {
		if text := q.Get(name); text != "" {
			if *into, err = strconv.ParseInt(text, 10, 64); err != nil || *into < 0 {
				return f, p, fmt.Errorf("%s: %.32q is not a number", name, text)
			}
		}
	}
	p.limit, p.offset = int(min(limit, math.MaxInt32)), int(min(offset, math.MaxInt32))
	return f, p, nil
}

// around reads ip and range.
func around(q url.Values) (netip.Prefix, error) {
	if s := q.Get("ip"); s != "" {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("ip: %.64q is not an IP address", s)
		}
		a = a.WithZone("").Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	if s := q.Get("range"); s != "" {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("range: %.64q is not a range", s)
		}
		return p.Masked(), nil
	}
	return netip.Prefix{}, nil
}

func list(q url.Values, name string) (out []string) {
	for _, v := range q[name] {
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
