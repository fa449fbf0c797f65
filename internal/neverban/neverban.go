// Package neverban finds the addresses that must stay reachable, whoever asks for it to be
// banned: this machine, the way to it, the services that it depends on, and
// the people who are logged in to it. Each entry says where it comes from and
// why, so that a refusal can be explained.
package neverban

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// Source says where an entry comes from. The set is closed.
type Source string

// The sources.
const (
	SourceBogon     Source = "bogon"         // addresses that nobody on the Internet has
	SourceOwn       Source = "own-address"   // an address of this machine
	SourceGateway   Source = "gateway"       // the next hop of a route
	SourceResolver  Source = "resolver"      // a DNS server in use
	SourceTime      Source = "time-server"   // an NTP server in use
	SourceBroker    Source = "broker"        // an MQTT broker of ours
	SourceContainer Source = "container-net" // the network of a container or virtual-machine bridge
	SourceVPN       Source = "vpn"           // a tunnel's network or its far end
	SourceAdmin     Source = "administrator" // someone is logged in from there
	SourceManual    Source = "manual"        // written by hand
	SourcePack      Source = "pack"          // from a signed list
	SourceCloud     Source = "cloud"         // a cloud serves its machines there
)

// An Entry is one protected prefix.
type Entry struct {
	Prefix netip.Prefix `json:"prefix"`
	Source Source       `json:"source"`
	// Reason is for people: "default gateway on eth0".
	Reason string `json:"reason"`
	// Until is when the entry ends; zero is never.
	Until time.Time `json:"until,omitzero"`
	// Kind says why many people share the address, and From whose word that is
	// and of when: "https://www.cloudflare.com/ips/, 2026-11-21".
	Kind Kind   `json:"kind,omitempty"`
	From string `json:"from,omitempty"`
}

// String says source, prefix and reason to people.
func (e Entry) String() string {
	s := string(e.Source) + " " + ban.Target{}.String()
	if t, err := ban.TargetOfPrefix(e.Prefix); err == nil {
		s = string(e.Source) + " " + t.String()
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

// A Set is an immutable set of entries that answers quickly, also where there
// are a hundred thousand. The zero Set is empty.
type Set struct {
	prefixes ban.Prefixes[span]
	entries  []Entry // by address, those that contain others first
}

// span is the entries inside an outermost prefix, itself included.
type span struct{ from, to int }

// NewSet makes a set of entries.
func NewSet(entries []Entry) Set {
	s := Set{entries: slices.Clone(entries)}
	slices.SortStableFunc(s.entries, func(a, b Entry) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	s.prefixes = ban.NewPrefixes(func(yield func(netip.Prefix, span) bool) {
		for from := 0; from < len(s.entries); {
			to := from + 1
			for to < len(s.entries) && s.entries[from].Prefix.Overlaps(s.entries[to].Prefix) {
				to++
			}
			if !yield(s.entries[from].Prefix, span{from, to}) {
				return
			}
			from = to
		}
	})
	return s
}

// Overlaps finds an entry that contains p or that p contains. Of several that
// contain one another it gives the most telling: the longest prefix, and the
// first of equals.
func (s Set) Overlaps(p netip.Prefix) (Entry, bool) {
	_, in, ok := s.prefixes.Overlaps(p)
	if !ok {
		return Entry{}, false
	}
	best := in.from
	for i := in.from; i < in.to; i++ {
		if e := s.entries[i]; e.Prefix.Overlaps(p) && e.Prefix.Bits() > s.entries[best].Prefix.Bits() {
			best = i
		}
	}
	return s.entries[best], true
}

// Protects says why a target must not be banned. It never protects wallets.
func (s Set) Protects(t ban.Target) (why string, ok bool) {
	p, ip := t.Prefix()
	if !ip {
		return "", false
	}
	e, ok := s.Overlaps(p)
	if !ok {
		return "", false
	}
	return e.String(), true
}

// Prefixes gives the outermost prefixes in order: the kernel's first rule.
func (s Set) Prefixes() []netip.Prefix {
	list := make([]netip.Prefix, 0, s.prefixes.Len())
	for p := range s.prefixes.All() {
		list = append(list, p)
	}
	return list
}

// bogons are addresses that cannot be an attacker elsewhere: RFC 6890 and its
// registries, RFC 1918, RFC 6598, RFC 4193, documentation and multicast, and
// forms of IPv6 that carry an IPv4 address, whose owner never used them.
var bogons = [...]struct{ prefix, reason string }{
	{"0.0.0.0/8", "this network, RFC 791"},
	{"10.0.0.0/8", "private, RFC 1918"},
	{"100.64.0.0/10", "shared by carriers, RFC 6598"},
	{"127.0.0.0/8", "loopback"},
	{"169.254.0.0/16", "link-local, RFC 3927"},
	{"172.16.0.0/12", "private, RFC 1918"},
	{"192.0.0.0/24", "IETF assignments, RFC 6890"},
	{"192.0.2.0/24", "documentation, RFC 5737"},
	{"192.88.99.0/24", "6to4 relays, RFC 7526"},
	{"192.168.0.0/16", "private, RFC 1918"},
	{"198.18.0.0/15", "benchmarks, RFC 2544"},
	{"198.51.100.0/24", "documentation, RFC 5737"},
	{"203.0.113.0/24", "documentation, RFC 5737"},
	{"224.0.0.0/4", "multicast"},
	{"240.0.0.0/4", "reserved and broadcast"},
	{"::/128", "unspecified"},
	{"::1/128", "loopback"},
	{"::/96", "IPv4 in IPv6, out of use, RFC 4291"},
	{"64:ff9b::/96", "NAT64, RFC 6052"},
	{"64:ff9b:1::/48", "NAT64, RFC 8215"},
	{"100::/64", "discard, RFC 6666"},
	{"100:0:0:1::/64", "dummy prefix, RFC 9780"},
	{"2001::/32", "Teredo, RFC 4380"},
	{"2001:2::/48", "benchmarks, RFC 5180"},
	{"2001:10::/28", "ORCHID, RFC 4843"},
	{"2001:20::/28", "ORCHIDv2, RFC 7343"},
	{"2001:db8::/32", "documentation, RFC 3849"},
	{"2002::/16", "6to4, RFC 7526"},
	{"3fff::/20", "documentation, RFC 9637"},
	{"5f00::/16", "segment routing, RFC 9602"},
	{"fc00::/7", "private, RFC 4193"},
	{"fe80::/10", "link-local"},
	{"fec0::/10", "private, site-local, RFC 3879"},
	{"ff00::/8", "multicast"},
}

// Bogons lists the addresses that no peer can make us ban. Entries that
// overlap a prefix of lab are left out, for networks of one's own that use
// them.
func Bogons(lab []netip.Prefix) []Entry {
	list := make([]Entry, 0, len(bogons))
	for _, b := range bogons {
		p := netip.MustParsePrefix(b.prefix)
		if !slices.ContainsFunc(lab, func(l netip.Prefix) bool { return l.Overlaps(p) }) {
			list = append(list, Entry{Prefix: p, Source: SourceBogon, Reason: b.reason})
		}
	}
	return list
}

// WithoutPrivate leaves out the private ranges of RFC 1918 and RFC 4193 and
// the link-local ones: for a node whose own detection may ban neighbours in a
// private network. Loopback, gateways and everything else stays.
func WithoutPrivate(entries []Entry) []Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool {
		return e.Source == SourceBogon && (strings.HasPrefix(e.Reason, "private") || strings.HasPrefix(e.Reason, "link-local"))
	})
}
