// Package wallet reads and writes Ethereum addresses as people type them:
// EIP-55 checked, and refused with a reason and a way out.
package wallet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"banmesh/internal/ban"
)

// OrchestratorTopic is the topic of orchestrators that gateways do not use. All
// other topics of wallets are of gateways.
const OrchestratorTopic = "orchestrator-addresses"

// Text is the length of an address's text: "0x" and 40 hex digits.
const Text = 42

// Reasons why [Parse] refuses a text. Each is said with its remedy.
var (
	ErrEmpty    = errors.New("no address given")
	ErrPrefix   = errors.New(`an Ethereum address begins with "0x"`)
	ErrLength   = errors.New(`an Ethereum address is "0x" and 40 hex digits`)
	ErrDigit    = errors.New("not a hex digit")
	ErrChecksum = errors.New("the capital letters do not fit the address (EIP-55): a digit is mistyped; copy it again, or write it all in lower case if you are sure")
	ErrZero     = errors.New("the zero address stands for nobody and cannot be denied")
	ErrName     = errors.New("a name can come to mean another address after it was signed: resolve it yourself and give the address")
)

// Parse reads "0x" and 40 hex digits. All lower and all upper case pass; mixed
// case must be the spelling of EIP-55, because one mistyped digit would deny a
// stranger. Spaces around the text are not forgiven here: a caller that reads
// files trims.
func Parse(s string) (w [20]byte, err error) {
	switch {
	case s == "":
		return w, ErrEmpty
	case isName(s):
		return w, fmt.Errorf("%q: %w", clip(s), ErrName)
	case !strings.HasPrefix(s, "0x"):
		return w, fmt.Errorf("%q: %w", clip(s), ErrPrefix)
	case len(s) != Text:
		return w, fmt.Errorf("%q: %w, this has %d", clip(s), ErrLength, len(s)-2)
	}
	digits := s[2:]
	if _, err := hex.Decode(w[:], []byte(digits)); err != nil {
		return [20]byte{}, fmt.Errorf("%q: %w", clip(s), ErrDigit)
	}
	mixed := digits != strings.ToLower(digits) && digits != strings.ToUpper(digits)
	if mixed && s != Format(w) {
		return [20]byte{}, fmt.Errorf("%s: %w", s, ErrChecksum)
	}
	if w == ([20]byte{}) {
		return w, ErrZero
	}
	return w, nil
}

// Format gives the EIP-55 spelling. https://eips.ethereum.org/EIPS/eip-55
func Format(w [20]byte) string { return ban.FormatWallet(w) }

// isName says whether a text looks like an ENS name or another word that
// people use for an address, rather than like a mistyped address.
func isName(s string) bool {
	dot := strings.LastIndexByte(s, '.')
	return dot > 0 && dot < len(s)-1 && !strings.HasPrefix(s, "0x")
}

// clip bounds foreign text that an error repeats.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
