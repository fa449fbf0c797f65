package nft

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A source is a way to read the sender's address into register 1.
type source struct {
	text   string
	proto  byte
	offset uint32
	size   uint32
	next   uint32 // the register that follows the address in a concatenation
	prefix int    // how many of its bits count, 0 for all
}

var (
	from4  = source{"ip saddr", unix.NFPROTO_IPV4, 12, 4, 9, 0}
	from6  = source{"ip6 saddr", unix.NFPROTO_IPV6, 8, 16, 2, 0}
	from64 = source{"ip6 saddr & ffff:ffff:ffff:ffff::", unix.NFPROTO_IPV6, 8, 16, 2, 64}
	from48 = source{"ip6 saddr & ffff:ffff:ffff::", unix.NFPROTO_IPV6, 8, 16, 2, 48}
)

func (s source) load() []expr.Any {
	e := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{s.proto}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: s.offset, Len: s.size, DestRegister: 1},
	}
	if s.prefix > 0 {
		mask := append(slices.Repeat([]byte{0xff}, s.prefix/8), make([]byte, 16-s.prefix/8)...)
		e = append(e, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)})
	}
	return e
}

// set is nft's text for "the source is in the set". nft lists a masked one with
// an "==" that it also reads.
func (s source) set(name string) string {
	if s.prefix > 0 {
		return s.text + " == @" + name
	}
	return s.text + " @" + name
}

// ruleLoopback spares the host's traffic with itself.
func ruleLoopback() rule {
	return rule{join([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK)},
	}, verdict(expr.VerdictReturn, "")), "meta iiftype loopback return"}
}

// ruleNever spares the never-ban list. An address inside a banned /64 is looked
// up whole.
func ruleNever(s source) rule {
	if s.prefix > 0 {
		s = from6
	}
	name := setNever4
	if s.proto == unix.NFPROTO_IPV6 {
		name = setNever6
	}
	return rule{join(s.load(), lookup(name), verdict(expr.VerdictReturn, "")), s.set(name) + " return"}
}

func ruleMark(s source, m string) rule {
	return rule{
		join(s.load(), []expr.Any{
			&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		}),
		"meta mark set " + s.text + " map @" + m,
	}
}

func ruleVerdict() rule {
	return rule{[]expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: mapClasses},
	}, "meta mark vmap @" + mapClasses}
}

func lookup(name string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: name}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func join(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func markBytes(v uint32) string { return string(binary.NativeEndian.AppendUint32(nil, v)) }
