package client

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
)

// key4 is an IPv4 prefix: the address and then the length.
type key4 uint64

// key6 is an IPv6 prefix.
type key6 struct {
	high, low uint64
	bits      uint8
}

func prefix4(address uint32, length int) key4 {
	masked := uint32(uint64(address) &^ (1<<(32-length) - 1))
	return key4(masked)<<8 | key4(length)
}

func (k key4) String() string {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], uint32(k>>8))
	return prefixText(netip.PrefixFrom(netip.AddrFrom4(raw), int(k&0xff)))
}

func prefix6(high, low uint64, length int) key6 {
	// A shift by 64 gives zero, so both ends of the range need no case.
	switch {
	case length <= 64:
		high, low = high&^(1<<(64-length)-1), 0
	default:
		low &^= 1<<(128-length) - 1
	}
	return key6{high, low, uint8(length)}
}

// filterKey folds the prefix into the filter's argument.
func (k key6) filterKey() uint64 {
	return k.high*0x9e3779b97f4a7c15 ^ k.low ^ uint64(k.bits)<<32
}

// walletKey gives the filter's argument of a wallet, which is the end of a
// hash anyway.
func walletKey(w [20]byte) uint64 { return binary.LittleEndian.Uint64(w[12:]) }

func (k key6) String() string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], k.high)
	binary.BigEndian.PutUint64(raw[8:], k.low)
	return prefixText(netip.PrefixFrom(netip.AddrFrom16(raw), int(k.bits)))
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// errTarget says that a text is no address, prefix or wallet.
var errTarget = errors.New("not an address, prefix or wallet")

// target is a parsed target; prefix is valid for an address or a prefix.
type target struct {
	prefix netip.Prefix
	wallet [20]byte
}

func parseTarget(s string) (t target, err error) {
	if strings.HasPrefix(s, "0x") && len(s) == 42 {
		if _, err := hex.Decode(t.wallet[:], []byte(s[2:])); err != nil {
			return target{}, errTarget
		}
		return t, nil
	}
	if strings.IndexByte(s, '/') < 0 {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return target{}, errTarget
		}
		a = a.Unmap()
		return target{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return target{}, errTarget
	case p.Addr().Is4In6() && p.Bits() < 96:
		return target{}, errTarget
	case p.Addr().Is4In6():
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return target{prefix: p.Masked()}, nil
}
