package nft

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

const (
	// trapTimeout ends the redirection of honeyports when their agent is dead: the
	// port that it listened on may be another's by then.
	trapTimeout = time.Minute
	// trapRefresh is how often a living agent extends it.
	trapRefresh = 15 * time.Second
)

// honeyports adds the chain that leads new connections at closed ports to the
// agent's own listener. It stands behind everybody's translations, so that the
// published port of a container is the container's; and where a socket of this
// host would take the connection, that one has it, from the moment it listens.
// What is only forwarded is let pass, and so are those whom nobody bans.
func (r *ruleset) honeyports(c firewall.Config) {
	if len(c.Honeyports) == 0 {
		return
	}
	r.sets = append(r.sets, set{name: mapTraps, key: typePort, data: typePort, flags: unix.NFT_SET_MAP | unix.NFT_SET_TIMEOUT})
	tcp := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
	}
	ch := chain{name: chainTraps, base: true, nat: true, prio: prioTraps, rules: []rule{ruleLoopback(), ruleNever(from4), ruleNever(from6)}}
	// A socket bound to one address, and one bound to all.
	for _, wildcard := range []byte{0, 1} {
		ch.rules = append(ch.rules, rule{
			join(tcp, []expr.Any{
				&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{wildcard}},
			}, verdict(expr.VerdictReturn, "")),
			"meta l4proto tcp socket wildcard " + string('0'+wildcard) + " return",
		})
	}
	ch.rules = append(ch.rules, rule{
		join([]expr.Any{
			&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
		}, tcp, []expr.Any{
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: mapTraps},
			&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: portsSpecified},
		}),
		"fib daddr type local meta l4proto tcp redirect to :tcp dport map @" + mapTraps,
	})
	r.chains = append(r.chains, ch)
}

// portsSpecified is NF_NAT_RANGE_PROTO_SPECIFIED.
const portsSpecified = 2

// refreshTraps extends the redirection, when that is due.
func (n *Firewall) refreshTraps() error {
	if len(n.config.Honeyports) == 0 || n.off || n.have == nil || n.clock.at.Before(n.trapsDue) {
		return nil
	}
	if err := n.writeTraps(n.config.Honeyports); err != nil {
		return n.explain("watching honeyports", err)
	}
	n.trapsDue = n.clock.at.Add(trapRefresh)
	return nil
}

// writeTraps makes the redirection one of these ports.
func (n *Firewall) writeTraps(ports []uint16) error {
	t := &n.k.tx
	t.begin()
	t.flushSet(n.config.Table, mapTraps)
	to := binary.BigEndian.AppendUint16(nil, n.config.HoneyportTo)
	for chunk := range slices.Chunk(ports, perMessage) {
		list := t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapTraps)
		for _, port := range chunk {
			one := t.nest(unix.NFTA_LIST_ELEM)
			t.value(unix.NFTA_SET_ELEM_KEY, binary.BigEndian.AppendUint16(nil, port))
			t.u64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(trapTimeout.Milliseconds()))
			t.value(unix.NFTA_SET_ELEM_DATA, to)
			t.unnest(one)
		}
		t.unnest(list)
		t.end()
	}
	return n.flush()
}
