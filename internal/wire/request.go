package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/nacl/sign"
)

// Texts that people pass on, in one line each.
const (
	requestPrefix = "banmesh-request:"
	requestMagic  = "BMSH request 1"
)

// SignRequest gives a node's request for a certificate as a line of text: its
// key, signed by itself.
func SignRequest(node ed25519.PrivateKey, now time.Time) string {
	text := append([]byte(requestMagic), node.Public().(ed25519.PublicKey)...)
	text = binary.BigEndian.AppendUint32(text, Seconds(now))
	private := [64]byte(node)
	return requestPrefix + base64.RawURLEncoding.EncodeToString(sign.Sign(nil, text, &private))
}

// ParseRequest reads a request and gives the node's key.
func ParseRequest(text string) (key PublicKey, made time.Time, err error) {
	s, ok := strings.CutPrefix(strings.TrimSpace(text), requestPrefix)
	if !ok {
		return key, made, fmt.Errorf("%w: a request begins with %s", ErrFormat, requestPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != sign.Overhead+len(requestMagic)+32+4 {
		return key, made, fmt.Errorf("%w: it is no request", ErrFormat)
	}
	d := Decoder{B: b[sign.Overhead:]}
	if string(d.Take(len(requestMagic))) != requestMagic {
		return key, made, fmt.Errorf("%w: it is no request", ErrFormat)
	}
	copy(key[:], d.Take(len(key)))
	made = d.time()
	k := [32]byte(key)
	if _, ok := sign.Open(nil, b, &k); !ok {
		return key, made, ErrSignature
	}
	return key, made, nil
}
