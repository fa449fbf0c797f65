package ban

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A Target is the thing that is banned: an IP address or prefix, or an Ethereum address
// (a wallet). The zero Target is none of them. Targets are comparable and
// canonical: IPv4 in IPv6 is unmapped, prefixes are masked, zones are refused,
// so two targets that mean the same are equal.
type Target struct {
	prefix netip.Prefix
	wallet [20]byte
	kind   Kind
}

// Kind is the kind of a [Target]. The numbers are part of the protocol.
type Kind uint8

// Kinds of targets.
const (
	KindNone   Kind = iota // the zero Target
	KindAddr4              // one IPv4 address
	KindAddr6              // one IPv6 address
	KindNet6               // an IPv6 /64, which one IPv6 attacker holds whole
	KindCIDR4              // any other IPv4 prefix
	KindCIDR6              // any other IPv6 prefix
	KindWallet             // an Ethereum address, 20 bytes
)

var kindNames = [...]string{"none", "ipv4", "ipv6", "ipv6-64", "ipv4-prefix", "ipv6-prefix", "wallet"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// ErrTarget says that a text or value is not a target.
var ErrTarget = errors.New("not an IP address, prefix or Ethereum address")

// TargetOfAddr gives the target of one address. It fails for the invalid
// address and for one with a zone.
func TargetOfAddr(a netip.Addr) (Target, error) {
	if !a.IsValid() || a.Zone() != "" {
		return Target{}, fmt.Errorf("%q: %w", a.String(), ErrTarget)
	}
	a = a.Unmap()
	return TargetOfPrefix(netip.PrefixFrom(a, a.BitLen()))
}

// TargetOfPrefix gives the target of a prefix, masked. A prefix inside
// ::ffff:0:0/96 becomes the IPv4 prefix that it means.
func TargetOfPrefix(p netip.Prefix) (Target, error) {
	if !p.IsValid() || p.Addr().Zone() != "" {
		return Target{}, fmt.Errorf("%q: %w", p.String(), ErrTarget)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return Target{}, fmt.Errorf("%q: %w: it mixes IPv4 and IPv6", p.String(), ErrTarget)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	t := Target{prefix: p.Masked()}
	switch four, bits := p.Addr().Is4(), p.Bits(); {
	case four && bits == 32:
		t.kind = KindAddr4
	case four:
		t.kind = KindCIDR4
	case bits == 128:
		t.kind = KindAddr6
	case bits == 64:
		t.kind = KindNet6
	default:
		t.kind = KindCIDR6
	}
	return t, nil
}

// TargetOfWallet gives the target of an Ethereum address. The zero address,
// which stands for "nobody", is refused.
func TargetOfWallet(w [20]byte) (Target, error) {
	if w == ([20]byte{}) {
		return Target{}, fmt.Errorf("the zero Ethereum address: %w", ErrTarget)
	}
	return Target{wallet: w, kind: KindWallet}, nil
}

// ParseTarget reads an address ("192.0.2.7"), a prefix ("2001:db8::/64") or an
// Ethereum address ("0x" and 40 hex digits). It does not check EIP-55, because
// it also reads the program's own texts; the input of a person goes
// through a check of its own.
func ParseTarget(s string) (Target, error) {
	switch {
	case len(s) == 42 && (strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X")):
		var w [20]byte
		if _, err := hex.Decode(w[:], []byte(s[2:])); err != nil {
			return Target{}, fmt.Errorf("%q: %w", clip(s), ErrTarget)
		}
		return TargetOfWallet(w)
	case strings.Contains(s, "/"):
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return Target{}, fmt.Errorf("%q: %w", clip(s), ErrTarget)
		}
		return TargetOfPrefix(p)
	default:
		a, err := netip.ParseAddr(s)
		if err != nil {
			return Target{}, fmt.Errorf("%q: %w", clip(s), ErrTarget)
		}
		return TargetOfAddr(a)
	}
}

// MustTarget is [ParseTarget] for constants and tests; it panics on an error.
func MustTarget(s string) Target {
	t, err := ParseTarget(s)
	if err != nil {
		panic(err)
	}
	return t
}

// Kind gives the target's kind.
func (t Target) Kind() Kind { return t.kind }

// IsZero says whether t is no target at all.
func (t Target) IsZero() bool { return t.kind == KindNone }

// Prefix gives the addresses that an IP target covers. ok is false for a
// wallet and for the zero Target.
func (t Target) Prefix() (p netip.Prefix, ok bool) {
	return t.prefix, t.kind != KindWallet && t.kind != KindNone
}

// Wallet gives the Ethereum address of a wallet target.
func (t Target) Wallet() (w [20]byte, ok bool) { return t.wallet, t.kind == KindWallet }

// String gives the shortest form: an address without a length, a prefix, or
// a wallet in the spelling of EIP-55. [ParseTarget] reads it back.
func (t Target) String() string {
	switch t.kind {
	case KindNone:
		return "none"
	case KindWallet:
		return FormatWallet(t.wallet)
	case KindAddr4, KindAddr6:
		return t.prefix.Addr().String()
	}
	return t.prefix.String()
}

// Compare orders targets by kind, then by address, then by prefix length: the
// order in which feeds are sorted.
func (t Target) Compare(u Target) int {
	if t.kind == KindWallet || u.kind == KindWallet {
		return cmp.Or(cmp.Compare(t.kind, u.kind), bytes.Compare(t.wallet[:], u.wallet[:]))
	}
	return cmp.Or(
		cmp.Compare(t.kind, u.kind),
		t.prefix.Addr().Compare(u.prefix.Addr()),
		cmp.Compare(t.prefix.Bits(), u.prefix.Bits()),
	)
}

// MarshalText implements [encoding.TextMarshaler].
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Target) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTarget(string(b))
	return err
}
