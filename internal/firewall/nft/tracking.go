package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

// trackSize bounds the kernel's memory of peers and connections, about 8 MB.
const trackSize = 65_535

// tracking adds what needs connection tracking: a chain that exists only where
// a scope asks for it, because it makes the kernel track every connection.
func (r *ruleset) tracking(c firewall.Config) {
	ch := chain{name: chainTrack, base: true, prio: prioTrack, rules: []rule{ruleLoopback()}}
	var limits []rule
	for _, s := range c.Scopes {
		for _, v := range []struct {
			suffix string
			from   source
			key    datatype
		}{{"4", from4, typeService4}, {"6", from6, typeService6}} {
			tcp := join([]expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 9},
			}, lookup(portsHead+string(s.Topic)))
			tcpText := "meta l4proto . tcp dport @" + portsHead + string(s.Topic)
			key := join(v.from.load(), []expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: v.from.next}})
			if s.Remember > 0 {
				name := peersHead + string(s.Topic) + "_" + v.suffix
				r.sets = append(r.sets, set{
					name: name, key: v.key, size: trackSize, timeout: s.Remember,
					flags: unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
				})
				// A packet of the side that dialled, in a connection that both
				// sides have spoken in, with neither SYN nor RST nor FIN: the
				// handshake is over, so the source address is not forged. It is
				// remembered from its last packet on.
				ch.rules = append(ch.rules, rule{
					join(conntrackState(expr.CtStateBitESTABLISHED), []expr.Any{
						&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
						&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
					}, tcp, []expr.Any{
						&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1, DestRegister: 1},
						&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x17}, Xor: []byte{0}},
						&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x10}},
					}, key, []expr.Any{&expr.Dynset{SrcRegKey: 1, SetName: name, Operation: unix.NFT_DYNSET_OP_UPDATE}}),
					"ct state established ct direction original " + tcpText + " tcp flags ack / fin,syn,rst,ack update @" + name + " { " + v.from.text + " . tcp dport }",
				})
			}
			if s.MaxConnections > 0 {
				name := limitHead + string(s.Topic) + "_" + v.suffix
				r.sets = append(r.sets, set{name: name, key: v.key, size: trackSize, flags: unix.NFT_SET_EVAL})
				limit := rule{
					join(conntrackState(expr.CtStateBitNEW), tcp, key, []expr.Any{&expr.Dynset{
						SrcRegKey: 1, SetName: name, Operation: unix.NFT_DYNSET_OP_ADD,
						Exprs: []expr.Any{&expr.Connlimit{Count: s.MaxConnections, Flags: expr.NFT_CONNLIMIT_F_INV}},
					}}),
					fmt.Sprintf("ct state new %s add @%s { %s . tcp dport ct count over %d } ", tcpText, name, v.from.text, s.MaxConnections),
				}
				limits = append(limits, limit.count(s, nil))
			}
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

func conntrackState(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bit), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
