package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

// trackSize bounds the kernel's memory of limited connections.
const trackSize = 65_535

// tracking adds all that needs connection tracking: a chain that exists only where
// a scope asks for it, because it makes the kernel track every connection.
func (r *ruleset) tracking(c firewall.Config) {
	ch := chain{name: chainTrack, base: true, prio: prioTrack, rules: []rule{ruleLoopback()}}
	var limits []rule
	for _, s := range c.Scopes {
		if s.Remembers() {
			ch.rules = append(ch.rules, r.remember(s, c.Traces()))
		}
		if s.MaxConnections > 0 {
			limits = append(limits, r.limit(s)...)
		}
	}
	if len(limits) > 0 {
		ch.rules = append(ch.rules, ruleNever(from4), ruleNever(from6))
		ch.rules = append(ch.rules, limits...)
	}
	if len(ch.rules) > 1 {
		r.chains = append(r.chains, ch)
	}
}

// families are the two that every set of peers exists for.
var families = [...]struct {
	suffix string
	from   source   // a connection's address
	peer   source   // an offender: an address, or a /64 of IPv6
	share  source   // those who share the room for connections: a /48 of IPv6
	addr   datatype // of the last two
	pair   datatype // address and port
}{{"_4", from4, from4, from4, typeIPv4, typeService4}, {"_6", from6, from64, from48, typeIPv6, typeService6}}

// toPorts matches TCP to the scope's ports.
func toPorts(s firewall.Scope) rule {
	return rule{
		join([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 9},
		}, lookup(portsHead+string(s.Topic))),
		"meta l4proto . tcp dport @" + portsHead + string(s.Topic),
	}
}

// remember adds a scope's sets of peers and the chain that fills them, and gives
// the rule that leads there.
//
// A packet of the side that dialled, in a connection that both sides have spoken
// in, with neither SYN nor RST nor FIN: the handshake is over, so the source
// address is not forged. Address and connection are remembered from the last
// such packet on, and carry the bytes of all of them. The bytes are a quota's,
// which is never used up: a counter would take 16 bytes a processor each.
//
// Nobody can fill the room with connections of its own: beyond its share a
// source's connections are not told apart, and it is noted that they are not.
func (r *ruleset) remember(s firewall.Scope, room uint32) rule {
	topic := string(s.Topic)
	r.counters = append(r.counters, forgotHead+topic)
	ch := chain{name: peersHead + topic}
	meter := []expr.Any{&expr.Quota{Bytes: meterMost}}
	const meterText = "quota 1073741824 mbytes"
	update := func(set string, with ...expr.Any) []expr.Any {
		return []expr.Any{&expr.Dynset{SrcRegKey: 1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: with}}
	}
	for _, f := range families {
		peers, conns, share, many := peersHead+topic+f.suffix, connsHead+topic+f.suffix, shareHead+topic+f.suffix, manyHead+topic+f.suffix
		for _, x := range []set{
			// No packet comes from the address of zeros.
			{name: peers, key: f.addr, size: room, marked: true},
			{name: conns, key: f.pair, size: room},
			// Where more sources come than these hold, their connections are
			// remembered without a limit of their own.
			{name: share, key: f.addr, size: room / 4},
			{name: many, key: f.addr, size: room / 4},
		} {
			x.timeout, x.flags = s.Remember, unix.NFT_SET_EVAL|unix.NFT_SET_TIMEOUT
			r.sets = append(r.sets, x)
		}
		conn := join(f.from.load(), []expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2, DestRegister: f.from.next}})
		limit := &expr.Limit{Type: expr.LimitTypePkts, Rate: firewall.Share, Unit: expr.LimitTimeHour, Burst: firewall.Share, Over: true}
		ch.rules = append(ch.rules, rule{
			join(f.peer.load(), update(peers, meter...)),
			fmt.Sprintf("update @%s { %s %s }", peers, f.peer.text, meterText),
		}, rule{
			// A look-up that finds the connection would count its bytes, too; one
			// for its absence does not.
			join(conn, []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: conns, Invert: true}},
				f.share.load()[2:], update(share, limit), f.share.load()[2:], update(many), verdict(expr.VerdictReturn, "")),
			fmt.Sprintf("%s . th sport != @%s update @%s { %s limit rate over %d/hour burst %d packets } update @%s { %s } return",
				f.from.text, conns, share, f.share.text, firewall.Share, firewall.Share, many, f.share.text),
		}, rule{
			join(conn, update(conns, meter...), verdict(expr.VerdictReturn, "")),
			fmt.Sprintf("update @%s { %s . th sport %s } return", conns, f.from.text, meterText),
		})
	}
	// An update that finds no room ends its rule, so only those get here.
	ch.rules = append(ch.rules, rule{
		[]expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: forgotHead + topic}},
		fmt.Sprintf("counter name %q", forgotHead+topic),
	})
	r.chains = append(r.chains, ch)
	to := toPorts(s)
	return rule{
		join(conntrackState(expr.CtStateBitESTABLISHED), []expr.Any{
			&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
		}, to.exprs, []expr.Any{
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1, DestRegister: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x17}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x10}},
		}, verdict(expr.VerdictJump, ch.name)),
		"ct state established ct direction original " + to.text + " tcp flags ack / fin,syn,rst,ack jump " + ch.name,
	}
}

// meterMost is a quota of bytes that no peer uses up, beyond which the kernel
// would say no more than that.
const meterMost = 1 << 50

// limit adds a scope's sets of counted connections and gives their rules.
func (r *ruleset) limit(s firewall.Scope) (out []rule) {
	for _, f := range families {
		name := limitHead + string(s.Topic) + f.suffix
		r.sets = append(r.sets, set{name: name, key: f.pair, size: trackSize, flags: unix.NFT_SET_EVAL})
		to := toPorts(s)
		one := rule{
			join(conntrackState(expr.CtStateBitNEW), to.exprs, f.from.load(), []expr.Any{
				&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: f.from.next},
				&expr.Dynset{
					SrcRegKey: 1, SetName: name, Operation: unix.NFT_DYNSET_OP_ADD,
					Exprs: []expr.Any{&expr.Connlimit{Count: s.MaxConnections, Flags: expr.NFT_CONNLIMIT_F_INV}},
				},
			}),
			fmt.Sprintf("ct state new %s add @%s { %s . tcp dport ct count over %d } ", to.text, name, f.from.text, s.MaxConnections),
		}
		out = append(out, one.count(s, nil))
	}
	return out
}

func conntrackState(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
