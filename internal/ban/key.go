package ban

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// A Key is a target as feeds sort it: the kind and its fixed number of bytes.
// Keys are ordered as [ban.Target.Compare] orders targets.
type Key struct {
	Kind Kind
	B    [20]byte // the first KeyWidth(Kind) bytes; the rest is zero
}

// keyWidths are the bytes of a key: an address, a network part, an address and a
// prefix length, or a wallet.
var keyWidths = [...]int{KindAddr4: 4, KindAddr6: 16, KindNet6: 8, KindCIDR4: 5, KindCIDR6: 17, KindWallet: 20}

// KeyWidth is the bytes of a key of the kind, 0 for no kind.
func KeyWidth(k Kind) int {
	if int(k) < len(keyWidths) {
		return keyWidths[k]
	}
	return 0
}

// Bytes gives the bytes that the kind has, aliasing k.
func (k *Key) Bytes() []byte { return k.B[:KeyWidth(k.Kind)] }

// CompareKeys orders keys by kind, then by their bytes.
func CompareKeys(a, b *Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.B[:], b.B[:]))
}

// KeyOf gives the key of a target; the zero Key for no target.
func KeyOf(t Target) (k Key) {
	k.Kind = t.Kind()
	if w, ok := t.Wallet(); ok {
		copy(k.B[:], w[:])
		return k
	}
	p, _ := t.Prefix()
	switch k.Kind {
	case KindAddr4, KindCIDR4:
		a := p.Addr().As4()
		copy(k.B[:], a[:])
		if k.Kind == KindCIDR4 {
			k.B[4] = byte(p.Bits())
		}
	case KindNet6:
		a := p.Addr().As16()
		copy(k.B[:], a[:8])
	case KindAddr6, KindCIDR6:
		a := p.Addr().As16()
		copy(k.B[:], a[:])
		if k.Kind == KindCIDR6 {
			k.B[16] = byte(p.Bits())
		}
	}
	return k
}

// errKey says that bytes are no target, or one in another spelling.
var errKey = errors.New("a target is not canonical")

// Target gives the target of a key from the wire. It fails for bytes that are
// no target, and for those of a target that belongs to another kind.
func (k *Key) Target() (t Target, err error) {
	switch k.Kind {
	case KindAddr4:
		t, err = TargetOfAddr(netip.AddrFrom4([4]byte(k.B[:4])))
	case KindAddr6:
		t, err = TargetOfAddr(netip.AddrFrom16([16]byte(k.B[:16])))
	case KindNet6:
		var a [16]byte
		copy(a[:], k.B[:8])
		t, err = TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16(a), 64))
	case KindCIDR4:
		t, err = TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(k.B[:4])), int(k.B[4])))
	case KindCIDR6:
		t, err = TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte(k.B[:16])), int(k.B[16])))
	case KindWallet:
		t, err = TargetOfWallet(k.B)
	default:
		return t, fmt.Errorf("%w: kind %d", errKey, k.Kind)
	}
	if err != nil {
		return t, fmt.Errorf("%w: %w", errKey, err)
	}
	if t.Kind() != k.Kind || KeyOf(t) != *k {
		return t, fmt.Errorf("%w: %v", errKey, t)
	}
	return t, nil
}

// Number gives the key as a number where the wire has differences.
func (k *Key) Number() (uint64, bool) {
	switch k.Kind {
	case KindAddr4:
		return uint64(binary.BigEndian.Uint32(k.B[:4])), true
	case KindNet6:
		return binary.BigEndian.Uint64(k.B[:8]), true
	}
	return 0, false
}

// Text gives the kind and the key's bytes, the form of a chunk's bounds. It is
// ordered as keys are, because keys of a kind are equally long.
func (k *Key) Text() string { return string(append([]byte{byte(k.Kind)}, k.Bytes()...)) }

// KeyOfText reads a chunk's bound. The bytes may be no target; they only
// divide.
func KeyOfText(s string) (k Key) {
	k.Kind = Kind(s[0])
	copy(k.B[:], s[1:])
	return k
}
