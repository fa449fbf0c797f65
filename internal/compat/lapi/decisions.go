package lapi

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
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
// Some bouncers insist on the capital of a scope.
func (d decision) append(b []byte, now time.Time) []byte {
	rest := d.until.Sub(now)
	if rest > 0 {
		rest = max((rest + time.Second - 1).Truncate(time.Second), time.Second)
	} else {
		rest = min(rest.Truncate(time.Second), -time.Second)
	}
	b = append(append(b, `{"duration":"`...), rest.String()...)
	b = strconv.AppendInt(append(b, `","id":`...), d.id(), 10)
	b = append(append(b, `,"origin":"`...), d.origin...)
	b = append(append(b, `","scenario":"`...), d.scenario()...)
	if d.prefix.IsSingleIP() {
		b = d.prefix.Addr().AppendTo(append(b, `","scope":"Ip","type":"ban","value":"`...))
	} else {
		b = d.prefix.AppendTo(append(b, `","scope":"Range","type":"ban","value":"`...))
	}
	return append(b, `"}`...)
}

// appendList writes decisions as a JSON array.
func appendList(b []byte, list iter.Seq[decision], now time.Time) []byte {
	b = append(b, '[')
	first := true
	for d := range list {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = d.append(b, now)
	}
	return append(b, ']')
}

// singles cuts small IPv4 ranges into addresses, for bouncers that understand
// none: of 16 addresses at most.
func singles(list iter.Seq[decision]) iter.Seq[decision] {
	return func(yield func(decision) bool) {
		for d := range list {
			whole := d.prefix
			if whole.Addr().Is4() && whole.Bits() >= 28 {
				d.prefix = netip.PrefixFrom(whole.Addr(), 32)
			}
			for ; whole.Contains(d.prefix.Addr()); d.prefix = netip.PrefixFrom(d.prefix.Addr().Next(), 32) {
				if !yield(d) {
					return
				}
				if d.prefix == whole {
					break
				}
			}
		}
	}
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
	return fmt.Sprintf("%q %q %q %q %q %t", f.topics, f.origins, f.containing, f.excluding, f.value, []bool{f.ip, f.wide, f.nothing})
}
