package wire

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"banmesh/internal/ban"
)

// cardPrefix begins a card as a line of text.
const cardPrefix = "banmesh-card:"

// CardText gives a card as a line of text.
func CardText(raw []byte) string { return cardPrefix + base64.RawURLEncoding.EncodeToString(raw) }

// ParseCardText reads a card from the line or the file's bytes.
func ParseCardText(b []byte) (*Card, []byte, error) {
	raw := b
	if s, ok := strings.CutPrefix(strings.TrimSpace(string(b)), cardPrefix); ok {
		var err error
		if raw, err = base64.RawURLEncoding.Strict().DecodeString(s); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	card, err := OpenCard(raw)
	return card, raw, err
}

// SpokenFingerprint gives an operator's identity in eight syllable words that
// two people can read to each other on a telephone: proquints (Wilkerson,
// "A Proposal for Proquints", 2009), 16 bits each.
func SpokenFingerprint(o ban.Operator) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aiou"
	words := make([]string, 0, len(o)/2)
	for i := 0; i < len(o); i += 2 {
		v := binary.BigEndian.Uint16(o[i:])
		words = append(words, string([]byte{
			consonants[v>>12], vowels[v>>10&3], consonants[v>>6&15], vowels[v>>4&3], consonants[v&15],
		}))
	}
	return strings.Join(words, "-")
}
