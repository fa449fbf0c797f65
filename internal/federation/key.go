package federation

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"banmesh/internal/ban"
)

// A key is a target as feeds sort it: the kind and its fixed number of bytes.
// Keys are ordered as [ban.Target.Compare] orders targets.
type key struct {
	kind ban.Kind
	b    [20]byte // the first width(kind) bytes; the rest is zero
}

// widths are the bytes of a key: an address, a network part, an address and a
// prefix length, or a wallet.
var widths = [...]int{ban.KindAddr4: 4, ban.KindAddr6: 16, ban.KindNet6: 8, ban.KindCIDR4: 5, ban.KindCIDR6: 17, ban.KindWallet: 20}

// width is the bytes of a key of the kind, 0 for no kind.
func width(k ban.Kind) int {
	if int(k) < len(widths) {
		return widths[k]
	}
	return 0
}

func (k *key) bytes() []byte { return k.b[:width(k.kind)] }

func compareKeys(a, b *key) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), bytes.Compare(a.b[:], b.b[:]))
}

func keyOf(t ban.Target) (k key) {
	k.kind = t.Kind()
	if w, ok := t.Wallet(); ok {
		copy(k.b[:], w[:])
		return k
	}
	p, _ := t.Prefix()
	switch k.kind {
	case ban.KindAddr4, ban.KindCIDR4:
		a := p.Addr().As4()
		copy(k.b[:], a[:])
		if k.kind == ban.KindCIDR4 {
			k.b[4] = byte(p.Bits())
		}
	case ban.KindNet6:
		a := p.Addr().As16()
		copy(k.b[:], a[:8])
	case ban.KindAddr6, ban.KindCIDR6:
		a := p.Addr().As16()
		copy(k.b[:], a[:])
		if k.kind == ban.KindCIDR6 {
			k.b[16] = byte(p.Bits())
		}
	}
	return k
}

// errKey says that bytes are no target, or one in another spelling.
var errKey = errors.New("a target is not canonical")

// target gives the target of a key from the wire. It fails for bytes that are
// no target, and for those of a target that belongs to another kind.
func (k *key) target() (t ban.Target, err error) {
	switch k.kind {
	case ban.KindAddr4:
		t, err = ban.TargetOfAddr(netip.AddrFrom4([4]byte(k.b[:4])))
	case ban.KindAddr6:
		t, err = ban.TargetOfAddr(netip.AddrFrom16([16]byte(k.b[:16])))
	case ban.KindNet6:
		var a [16]byte
		copy(a[:], k.b[:8])
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16(a), 64))
	case ban.KindCIDR4:
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(k.b[:4])), int(k.b[4])))
	case ban.KindCIDR6:
		t, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte(k.b[:16])), int(k.b[16])))
	case ban.KindWallet:
		t, err = ban.TargetOfWallet(k.b)
	default:
		return t, fmt.Errorf("%w: kind %d", errKey, k.kind)
	}
	if err != nil {
		return t, fmt.Errorf("%w: %w", errKey, err)
	}
	if t.Kind() != k.kind || keyOf(t) != *k {
		return t, fmt.Errorf("%w: %v", errKey, t)
	}
	return t, nil
}

// number gives the key as a number where the wire has differences.
func (k *key) number() (uint64, bool) {
	switch k.kind {
	case ban.KindAddr4:
		return uint64(binary.BigEndian.Uint32(k.b[:4])), true
	case ban.KindNet6:
		return binary.BigEndian.Uint64(k.b[:8]), true
	}
	return 0, false
}

// text gives the kind and the key's bytes, the form of a chunk's bounds. It is
// ordered as keys are, because keys of a kind are equally long.
func (k *key) text() string { return string(append([]byte{byte(k.kind)}, k.bytes()...)) }

// keyOfText reads a chunk's bound. The bytes may be no target; they only
// divide.
func keyOfText(s string) (k key) {
	k.kind = ban.Kind(s[0])
	copy(k.b[:], s[1:])
	return k
}
