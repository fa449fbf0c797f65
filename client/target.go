package client

import (
	"encoding/binary"
	"net/netip"
)

// key is a target as the tables have it: the first n bytes of b, which are an
// IPv4 prefix (4), an IPv6 prefix (16) or a wallet (20), and the prefix's length.
type key struct {
	b    [20]byte
	n    int
	bits uint8
}

func (k *key) bytes() []byte { return k.b[:k.n] }

// key6 gives the prefix of a length around an address.
func key6(a [16]byte, length int) key {
	k := key{n: 16, bits: uint8(length)}
	high, low := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	// A shift by 64 gives zero, so both ends of the range need no case.
	if length <= 64 {
		high, low = high&^(1<<(64-length)-1), 0
	} else {
		low &^= 1<<(128-length) - 1
	}
	binary.BigEndian.PutUint64(k.b[:], high)
	binary.BigEndian.PutUint64(k.b[8:], low)
	return k
}

// keyOfPrefix gives the key of a prefix.
func keyOfPrefix(p netip.Prefix) key {
	k := key{bits: uint8(p.Bits())}
	raw := p.Masked().Addr().AsSlice()
	k.n = copy(k.b[:], raw)
	return k
}

// String gives an address, a prefix, or a wallet in the spelling of EIP-55.
func (k key) String() string {
	switch k.n {
	case 4:
		return prefixText(netip.PrefixFrom(netip.AddrFrom4([4]byte(k.b[:4])), int(k.bits)))
	case 16:
		return prefixText(netip.PrefixFrom(netip.AddrFrom16([16]byte(k.b[:16])), int(k.bits)))
	}
	return walletText(k.b)
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
