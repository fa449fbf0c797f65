package pairing

import (
	"crypto/rand"
	"crypto/sha512"
	"errors"

	"github.com/gtank/ristretto255"
)

// CPace of draft-irtf-cfrg-cpace-21 over ristretto255 with SHA-512, for an initiator and
// a responder; its test vectors are in this package's tests.
const (
	cpaceDSI    = "CPaceRistretto255"
	cpaceDSIKey = "CPaceRistretto255_ISK"
	// sha512Block is the input block of SHA-512, which the generator string fills so
	// that the code alone is in the first one.
	sha512Block = 128
	elementSize = 32
	sidSize     = 16
)

// errElement says that a share is no element, or the neutral one.
var errElement = errors.New("not a share of the exchange")

// appendWithLength appends each part behind its length.
func appendWithLength(b []byte, parts ...[]byte) []byte {
	for _, p := range parts {
		n := len(p)
		for ; n >= 0x80; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		b = append(append(b, byte(n)), p...)
	}
	return b
}

// generator maps a code, the channel and the session to the group's element that
// both sides begin from.
func generator(code, channel, sid []byte) *ristretto255.Element {
	used := len(appendWithLength(nil, []byte(cpaceDSI), code))
	pad := make([]byte, max(0, sha512Block-1-used))
	digest := sha512.Sum512(appendWithLength(nil, []byte(cpaceDSI), code, pad, channel, sid))
	g, err := ristretto255.NewIdentityElement().SetUniformBytes(digest[:])
	if err != nil {
		panic("pairing: a digest has 64 bytes: " + err.Error())
	}
	return g
}

// newScalar draws a side's secret.
func newScalar() *ristretto255.Scalar {
	var b [64]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program
	s, err := ristretto255.NewScalar().SetUniformBytes(b[:])
	if err != nil {
		panic("pairing: drew 64 bytes: " + err.Error())
	}
	return s
}

// share is a side's public part.
func share(secret *ristretto255.Scalar, code, channel, sid []byte) []byte {
	return ristretto255.NewIdentityElement().ScalarMult(secret, generator(code, channel, sid)).Bytes()
}

// secretElement is the element that both sides come to, or an error where the other
// side's share is none that an honest side makes.
func secretElement(secret *ristretto255.Scalar, other []byte) ([]byte, error) {
	y, err := ristretto255.NewIdentityElement().SetCanonicalBytes(other)
	if err != nil {
		return nil, errElement
	}
	k := ristretto255.NewIdentityElement().ScalarMult(secret, y)
	if k.Equal(ristretto255.NewIdentityElement()) == 1 {
		return nil, errElement
	}
	return k.Bytes(), nil
}

// sessionKey is derived by both sides from the element and all that they sent:
// shares ya and yb of initiator and responder, each with its associated data.
func sessionKey(sid, k, ya, ada, yb, adb []byte) [64]byte {
	return sha512.Sum512(appendWithLength(nil, []byte(cpaceDSIKey), sid, k, ya, ada, yb, adb))
}
