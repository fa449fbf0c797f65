package lapi

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/recent"
	"banmesh/internal/export"
)

// The origins of decisions, where operators are not named: bouncers make a set
// of each, so there are few.
const (
	OriginHere    = "banmesh"
	OriginNetwork = "banmesh-net"
	// maxOrigins bounds the operators that are origins of their own.
	maxOrigins = 16
)

// decision is one ban as bouncers read it.
type decision struct {
	prefix netip.Prefix
	topic  ban.Topic
	class  ban.Class
	origin string
	until  time.Time
}

// strongest gives, of one target's bans, the one that is told: the longest that
// the filter lets through. ok is false when there is none.
func (f *filter) strongest(entries []export.Entry, origin func(export.Entry) string) (d decision, ok bool) {
	for _, e := range entries {
		if !f.topic(e.Topic) || ok && !e.Until.After(d.until) {
			continue
		}
		p, isIP := e.Target.Prefix()
		if !isIP || p.Addr().IsLoopback() || p.Addr().IsUnspecified() {
			continue
		}
		if x := (decision{prefix: p, topic: e.Topic, class: e.Class, until: e.Until, origin: origin(e)}); f.wants(x) {
			d, ok = x, true
		}
	}
	return d, ok
}

// ended makes the decisions that end a ban at a bouncer, one for each origin
// under which it may hold it.
func ended(e recent.Event, origins []string, now time.Time) (list []decision) {
	p, ok := e.Target.Prefix()
	if !ok {
		return nil
	}
	for _, origin := range origins {
		list = append(list, decision{prefix: p, topic: e.Topic, class: e.Class, origin: origin, until: now.Add(-time.Second)})
	}
	return list
}

// scope is the kind of value, with the capital that some bouncers insist on.
func (d decision) scope() string {
	if d.prefix.IsSingleIP() {
		return "Ip"
	}
	return "Range"
}

func (d decision) value() string {
	if d.prefix.IsSingleIP() {
		return d.prefix.Addr().String()
	}
	return d.prefix.String()
}

// scenario is shown as the reason.
func (d decision) scenario() string { return "banmesh/" + string(d.topic) + "/" + d.class.String() }

// id is a number that is the same for the same value, so that a reader may ask
// for those beyond one: 52 bits, which JavaScript reads exactly.
func (d decision) id() int64 {
	// FNV-1a over the address and the length.
	sum := uint64(14695981039346656037)
	a := d.prefix.Addr().As16()
	for _, b := range a {
		sum = (sum ^ uint64(b)) * 1099511628211
	}
	sum = (sum ^ uint64(d.prefix.Bits())) * 1099511628211
	return int64(sum>>12) | 1
}

// append writes the decision as JSON. Durations are whole seconds, because a
// bouncer reads a fraction as no end at all, and at least one in new decisions.
func (d decision) append(b []byte, now time.Time) []byte {
	rest := d.until.Sub(now)
	if rest > 0 {
		rest = max((rest + time.Second - 1).Truncate(time.Second), time.Second)
	} else {
		rest = min(rest.Truncate(time.Second), -time.Second)
	}
	b = append(b, `{"duration":"`...)
	b = appendSeconds(b, rest)
	b = append(b, `","id":`...)
	b = strconv.AppendInt(b, d.id(), 10)
	b = append(b, `,"origin":"`...)
	b = append(b, d.origin...)
	b = append(b, `","scenario":"`...)
	b = append(b, "banmesh/"...)
	b = append(b, d.topic...)
	b = append(b, '/')
	b = append(b, d.class.String()...)
	b = append(b, `","scope":"`...)
	b = append(b, d.scope()...)
	b = append(b, `","type":"ban","value":"`...)
	if d.prefix.IsSingleIP() {
		b = d.prefix.Addr().AppendTo(b)
	} else {
		b = d.prefix.AppendTo(b)
	}
	return append(b, `"}`...)
}

// appendSeconds writes whole seconds as [time.Duration.String] does.
func appendSeconds(b []byte, d time.Duration) []byte {
	if d < 0 {
		b, d = append(b, '-'), -d
	}
	s := int64(d / time.Second)
	if s >= 3600 {
		b = append(strconv.AppendInt(b, s/3600, 10), 'h')
	}
	if s >= 60 {
		b = append(strconv.AppendInt(b, s/60%60, 10), 'm')
	}
	return append(strconv.AppendInt(b, s%60, 10), 's')
}

// appendList writes decisions as a JSON array.
func appendList(b []byte, list []decision, now time.Time) []byte {
	b = append(b, '[')
	for i, d := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = d.append(b, now)
	}
	return append(b, ']')
}

// appendStream writes the answer of the stream. A value is never in both lists:
// some bouncers apply new decisions first, others deleted ones.
func appendStream(fresh, deleted []decision, now time.Time) []byte {
	b := make([]byte, 0, 32+160*(len(fresh)+len(deleted)))
	b = append(b, `{"deleted":`...)
	b = appendList(b, deleted, now)
	b = append(b, `,"new":`...)
	b = appendList(b, fresh, now)
	return append(b, '}')
}

// expand cuts small IPv4 ranges into addresses, for bouncers that understand
// none: of 16 addresses at most.
func expand(list []decision) []decision {
	out := make([]decision, 0, len(list))
	for _, d := range list {
		if d.prefix.IsSingleIP() || !d.prefix.Addr().Is4() || d.prefix.Bits() < 28 {
			out = append(out, d)
			continue
		}
		for a := d.prefix.Addr(); d.prefix.Contains(a); a = a.Next() {
			one := d
			one.prefix = netip.PrefixFrom(a, 32)
			out = append(out, one)
		}
	}
	return out
}

// without takes the values out of deleted that are in fresh, once ranges are
// cut into addresses.
func without(deleted, fresh []decision) []decision {
	in := make(map[netip.Prefix]bool, len(fresh))
	for _, d := range fresh {
		in[d.prefix] = true
	}
	return slices.DeleteFunc(deleted, func(d decision) bool { return in[d.prefix] })
}

// filter holds a request's parameters, restricted to the topics of its key.
type filter struct {
	topics     []ban.Topic // of the key and the request; empty means all
	ip, wide   bool        // scopes
	origins    []string
	containing []string // lower case, of scenarios
	excluding  []string
	value      string
	nothing    bool // types and scopes that there are none of
}

func (f *filter) topic(t ban.Topic) bool { return len(f.topics) == 0 || slices.Contains(f.topics, t) }

// wants applies all but the topics.
func (f *filter) wants(d decision) bool {
	single := d.prefix.IsSingleIP()
	switch {
	case f.nothing, single && !f.ip, !single && !f.wide:
		return false
	case len(f.origins) > 0 && !slices.Contains(f.origins, d.origin):
		return false
	case f.value != "" && f.value != d.value():
		return false
	}
	if len(f.containing)+len(f.excluding) == 0 {
		return true
	}
	scenario := d.scenario()
	in := func(s string) bool { return strings.Contains(scenario, s) }
	return (len(f.containing) == 0 || slices.ContainsFunc(f.containing, in)) && !slices.ContainsFunc(f.excluding, in)
}

// key tells filters apart in the cache of answers.
func (f *filter) key() string {
	var b bytes.Buffer
	for _, t := range f.topics {
		b.WriteString(string(t) + ",")
	}
	b.WriteString(strings.Join([]string{
		"", strconv.FormatBool(f.ip), strconv.FormatBool(f.wide), strings.Join(f.origins, ","), strings.Join(f.containing, ","),
		strings.Join(f.excluding, ","), f.value, strconv.FormatBool(f.nothing),
	}, "|"))
	return b.String()
}

// byEnd orders live answers: bouncers take the first.
func byEnd(a, b decision) int {
	return cmp.Or(b.until.Compare(a.until), cmp.Compare(a.value(), b.value()))
}
