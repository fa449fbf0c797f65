package nft

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// A ruleset is our table without the bans: as [firewall.Config] and the classes in
// use want it, or as the kernel has it.
type ruleset struct {
	comment  string
	owned    bool
	handle   uint64 // as read
	counters []string
	sets     []set
	chains   []chain
}

// A set is a set or map of the table.
type set struct {
	name    string
	key     datatype
	data    datatype // none for a set
	flags   uint32   // NFT_SET_*
	size    uint32
	timeout time.Duration
	comment string
	// fixed says that elements is all that the set holds. The others hold bans,
	// or elements that the kernel adds.
	fixed    bool
	elements []element
	// marked says that a new set gets one element, the key of zeros, which ends
	// with the set's timeout: while it is there the set is younger than that.
	marked bool
}

// A chain and its rules in order.
type chain struct {
	name  string
	base  bool
	prio  int32 // of a base chain, all of which are at prerouting
	nat   bool  // a base chain that translates, and is no filter
	rules []rule
}

// A rule is a list of expressions, and the same in nft's words.
type rule struct {
	exprs []expr.Any
	text  string
}

// A datatype of nftables.
type datatype struct {
	name  string
	magic uint32
	size  uint32
	order uint32 // of nft's userdata: 1 host, 2 big endian, 0 not said
}

// Types as nft numbers them (include/datatype.h); concatenations are shifted by
// 6 bits, and a verdict's number is the kernel's own (linux/netfilter/nf_tables.h).
var (
	typeIPv4     = datatype{"ipv4_addr", 7, 4, 2}
	typeIPv6     = datatype{"ipv6_addr", 8, 16, 2}
	typeMark     = datatype{"mark", 19, 4, 1}
	typeVerdict  = datatype{"verdict", unix.NFT_DATA_VERDICT, 0, 0}
	typePort     = datatype{"inet_service", 13, 2, 2}
	typeService  = datatype{"inet_proto . inet_service", 12<<6 | 13, 8, 0}
	typeService4 = datatype{"ipv4_addr . inet_service", 7<<6 | 13, 8, 0}
	typeService6 = datatype{"ipv6_addr . inet_service", 8<<6 | 13, 20, 0}
)

// Names in the table.
const (
	mapHost4     = "deny4"
	mapHost6     = "deny6"
	mapNet6      = "deny6n"
	mapWide4     = "deny4c"
	mapWide6     = "deny6c"
	mapClasses   = "classes"
	mapChecksums = "checksums"
	mapTraps     = "traps"
	setNever4    = "never4"
	setNever6    = "never6"
	chainBase    = "prerouting"
	chainTraps   = "honeyports"
	chainTrack   = "connections"
	counterHead  = "topic_"
	portsHead    = "ports_"
	limitHead    = "limit_"
	peersHead    = "peers_"  // addresses that finished a handshake; and the chain that remembers them
	connsHead    = "conns_"  // connections that did
	shareHead    = "share_"  // how many new connections a source may have remembered
	manyHead     = "many_"   // sources that had more
	forgotHead   = "forgot_" // counts packets whose connections found no room
	tableNote    = "bans, kept by banmesh; with many of them list it by: nft -t list table inet "
)

// Priorities at the prerouting hook. Bans come before connection tracking (at
// -200) and before Docker's and everybody's translations (at -100), so a packet
// is seen as it came off the wire and an `established accept` elsewhere cannot
// wave it through. Limits and remembered peers need the tracking, and must come
// before the translation to see the port that was dialled.
const (
	prioBans  = -310 // raw - 10
	prioTrack = -160 // mangle - 10
	// Honeyports come behind everybody's translations.
	prioTraps = -90 // dstnat + 10
)

// features are those of the kernel, found by probing.
type features struct {
	// mapGate says that a map serves as a set (Linux 6.5).
	mapGate bool
	// destroy says that an element can be deleted that may not exist (6.3).
	destroy bool
	// persist says that a table can be owned and outlive its owner (6.9).
	persist bool
	// track says that connections can be limited and remembered, trap that they
	// can be led to another port: modules that a small kernel lacks, and that are
	// asked for only where they are wanted.
	track, trap bool
}

// build gives the table that the configuration wants with these classes.
// Interval maps are looked up only where they hold something, since such a
// lookup costs every packet more than all the others together.
func build(c firewall.Config, classes []desired.Class, wide4, wide6 bool, f features, owned bool) *ruleset {
	r := &ruleset{comment: tableNote + c.Table, owned: owned}
	r.count(c, classes)
	timeouts, intervals := uint32(unix.NFT_SET_MAP|unix.NFT_SET_TIMEOUT), uint32(unix.NFT_SET_INTERVAL)
	r.sets = []set{
		{name: mapHost4, key: typeIPv4, data: typeMark, flags: timeouts},
		{name: mapHost6, key: typeIPv6, data: typeMark, flags: timeouts},
		{name: mapNet6, key: typeIPv6, data: typeMark, flags: timeouts},
		{name: mapWide4, key: typeIPv4, data: typeMark, flags: timeouts | intervals},
		{name: mapWide6, key: typeIPv6, data: typeMark, flags: timeouts | intervals},
		{name: mapChecksums, key: typeMark, data: typeIPv6, flags: timeouts, comment: "checksums of the bans, by which the next agent adopts them"},
		{name: setNever4, key: typeIPv4, flags: intervals, fixed: true, elements: intervalsOf(c.Never, true)},
		{name: setNever6, key: typeIPv6, flags: intervals, fixed: true, elements: intervalsOf(c.Never, false)},
	}
	for _, s := range c.Scopes {
		if len(s.Ports) > 0 {
			r.sets = append(r.sets, set{name: portsHead + string(s.Topic), key: typeService, fixed: true, elements: services(s)})
		}
	}
	r.tracking(c)
	r.honeyports(c)
	verdicts := set{name: mapClasses, key: typeMark, data: typeVerdict, flags: unix.NFT_SET_MAP, fixed: true}
	for _, k := range classes {
		verdicts.elements = append(verdicts.elements, element{key: markBytes(k.ID), verdict: k.Chain()})
		r.chains = append(r.chains, classChain(c, k, f))
	}
	slices.SortFunc(verdicts.elements, compareElements)
	r.sets = append(r.sets, verdicts)
	r.lookups(wide4, wide6, f)
	slices.SortFunc(r.sets, func(a, b set) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(r.chains, func(a, b chain) int { return strings.Compare(a.name, b.name) })
	slices.Sort(r.counters)
	r.counters = slices.Compact(r.counters)
	return r
}

// count adds the counters of topics, and of operators in those that are only
// observed.
func (r *ruleset) count(c firewall.Config, classes []desired.Class) {
	for _, s := range c.Scopes {
		r.counters = append(r.counters, counterHead+string(s.Topic))
		if !s.Observe {
			continue
		}
		for _, k := range classes {
			for _, name := range k.Names(s.Topic) {
				r.counters = append(r.counters, operatorCounter(s.Topic, name))
			}
		}
	}
}

// lookups adds the base chain, which asks each map for the sender, and the
// chains that follow an answer.
func (r *ruleset) lookups(wide4, wide6 bool, f features) {
	base := chain{name: chainBase, base: true, prio: prioBans, rules: []rule{ruleLoopback()}}
	for _, m := range []struct {
		name string
		from source
		used bool
	}{
		{mapHost4, from4, true},
		{mapHost6, from6, true},
		{mapNet6, from64, true},
		{mapWide4, from4, wide4},
		{mapWide6, from6, wide6},
	} {
		switch {
		case !m.used:
		case f.mapGate:
			base.rules = append(base.rules, rule{
				join(m.from.load(), lookup(m.name), verdict(expr.VerdictJump, "hit_"+m.name)),
				m.from.set(m.name) + " jump hit_" + m.name,
			})
			r.chains = append(r.chains, chain{name: "hit_" + m.name, rules: []rule{
				ruleNever(m.from),
				ruleMark(m.from, m.name),
				ruleVerdict(),
			}})
		default:
			// Without maps as sets the class is looked up at once, in a register
			// that is also the packet's mark, and the never-ban list is asked by
			// the class's chain.
			base.rules = append(base.rules, ruleMark(m.from, m.name), ruleVerdict())
		}
	}
	r.chains = append(r.chains, base)
}

// classChain has the rules for a packet from an address of a class.
func classChain(c firewall.Config, k desired.Class, f features) chain {
	ch := chain{name: k.Chain()}
	if !f.mapGate {
		ch.rules = append(ch.rules, ruleNever(from4), ruleNever(from6))
	}
	for _, s := range c.Scopes {
		if _, ok := slices.BinarySearch(k.Topics, s.Topic); !ok {
			continue
		}
		var r rule
		switch {
		case s.All:
			ch.rules = append(ch.rules, r.count(s, k.Names(s.Topic)))
		case len(s.Ports) > 0:
			r.exprs = join(
				[]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}},
				[]expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 9}},
				lookup(portsHead+string(s.Topic)))
			r.text = "meta l4proto . th dport @" + portsHead + string(s.Topic) + " "
			ch.rules = append(ch.rules, r.count(s, k.Names(s.Topic)))
		case len(s.Protocols) > 0:
			for _, p := range s.Protocols {
				r.exprs = []expr.Any{
					&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{firewall.ProtocolNumber(p)}},
				}
				r.text = "meta l4proto " + p + " "
				ch.rules = append(ch.rules, r.count(s, k.Names(s.Topic)))
			}
		default:
			ch.rules = append(ch.rules, r.count(s, k.Names(s.Topic)))
		}
	}
	// A packet that passes leaves with the mark that packets have here: none.
	ch.rules = append(ch.rules, rule{
		[]expr.Any{&expr.Immediate{Register: 1, Data: make([]byte, 4)}, &expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}},
		"meta mark set 0x00000000",
	})
	return ch
}

// count completes a rule with the topic's counter, those of operators where it
// is only observed, and the verdict.
func (r rule) count(s firewall.Scope, operators []string) rule {
	r.exprs = append(slices.Clone(r.exprs), &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counterHead + string(s.Topic)})
	r.text += fmt.Sprintf("counter name %q", counterHead+string(s.Topic))
	if s.Observe {
		for _, name := range operators {
			r.exprs = append(r.exprs, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: operatorCounter(s.Topic, name)})
			r.text += fmt.Sprintf(" counter name %q", operatorCounter(s.Topic, name))
		}
	} else {
		r.exprs = append(r.exprs, verdict(expr.VerdictDrop, "")...)
		r.text += " drop"
	}
	return r
}
