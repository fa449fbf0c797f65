package pairing

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
)

// Letters of codes, so that every word can be said: consonants at its first, third and
// fifth place, vowels between.
const (
	consonants = "bdfghjklmnprstvz"
	vowels     = "aiou"
)

// codeWords is how many words of 16 bits a code has.
const codeWords = 2

// A Code is two words of five letters, such as "lusab-bidof".
type Code string

// NewCode draws a code.
func NewCode() Code {
	var b [2 * codeWords]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program
	words := make([]string, 0, codeWords)
	for i := range codeWords {
		v := binary.BigEndian.Uint16(b[2*i:])
		words = append(words, string([]byte{
			consonants[v>>12], vowels[v>>10&3], consonants[v>>6&15], vowels[v>>4&3], consonants[v&15],
		}))
	}
	return Code(strings.Join(words, "-"))
}

// ParseCode reads a code as people type it: in any case, with a hyphen, a space or
// nothing between the words.
func ParseCode(text string) (Code, error) {
	letters := make([]byte, 0, 5*codeWords)
	for _, r := range strings.ToLower(text) {
		switch {
		case r == '-' || r == ' ':
			continue
		case len(letters) == 5*codeWords:
			return "", fmt.Errorf("a code has %d letters, such as lusab-bidof", 5*codeWords)
		}
		allowed := consonants
		if len(letters)%5%2 == 1 {
			allowed = vowels
		}
		if r > 'z' || !strings.ContainsRune(allowed, r) {
			return "", fmt.Errorf("no code has %q there: a code is two words such as lusab-bidof", r)
		}
		letters = append(letters, byte(r))
	}
	if len(letters) != 5*codeWords {
		return "", fmt.Errorf("a code has %d letters, such as lusab-bidof", 5*codeWords)
	}
	return Code(string(letters[:5]) + "-" + string(letters[5:])), nil
}
