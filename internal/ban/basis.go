package ban

import (
	"fmt"
	"strings"
)

// A Basis says how well founded a claim is, by its author's word. Numbers are
// part of the protocol. The zero Basis is the weakest, so that a claim of which
// nothing is known proves nothing.
type Basis uint8

// The bases of the protocol, version 1. There are no others: it takes two bits.
const (
	BasisWeak       Basis = 0 // below the threshold, a class that honest clients make too, or no connection confirmed
	BasisStrong     Basis = 1 // a threshold reached by offences over confirmed connections
	BasisHandedOver Basis = 2 // another program's ban
	BasisDecided    Basis = 3 // a person, or a list that a person adopted
)

var basisNames = [...]string{
	BasisWeak:       "weak",
	BasisStrong:     "strong",
	BasisHandedOver: "handed-over",
	BasisDecided:    "decided",
}

// String gives the basis's name, or "basis-N" for a number that is none.
func (b Basis) String() string {
	if int(b) < len(basisNames) {
		return basisNames[b]
	}
	return fmt.Sprintf("basis-%d", uint8(b))
}

// ParseBasis reads a name that [Basis.String] gives for a known basis.
func ParseBasis(s string) (Basis, error) {
	for i, name := range basisNames {
		if s == name {
			return Basis(i), nil
		}
	}
	return 0, fmt.Errorf("unknown basis %q: want one of %s", s, strings.Join(basisNames[:], ", "))
}

// MarshalText implements [encoding.TextMarshaler].
func (b Basis) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *Basis) UnmarshalText(text []byte) error {
	v, err := ParseBasis(string(text))
	if err == nil {
		*b = v
	}
	return err
}
