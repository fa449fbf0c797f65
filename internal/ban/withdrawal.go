package ban

import (
	"fmt"
	"strings"
)

// A Withdrawal ends a claim: its author no longer says that Target is banned.
type Withdrawal struct {
	Target Target
	Reason Reason
}

// A Reason says why a claim is withdrawn. Numbers are part of the protocol:
// they are never reused, and a reader treats one that it does not know as
// [ReasonEnded].
type Reason uint8

// The reasons of the protocol, version 1.
const (
	ReasonEnded   Reason = 0 // it is over, or no longer worth saying
	ReasonMistake Reason = 1 // it should never have been said
	ReasonAppeal  Reason = 2 // somebody asked for it, and the author agreed
)

// MaxReason is the largest reason that the wire can carry.
const MaxReason Reason = 254

var reasonNames = [...]string{
	ReasonEnded:   "ended",
	ReasonMistake: "mistake",
	ReasonAppeal:  "appeal",
}

// String gives the reason's name, or "reason-N" for a number that this version
// does not know.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// ParseReason reads a name that [Reason.String] gives for a known reason.
func ParseReason(s string) (Reason, error) {
	for i, name := range reasonNames {
		if s == name {
			return Reason(i), nil
		}
	}
	return 0, fmt.Errorf("unknown reason %q: want one of %s", s, strings.Join(reasonNames[:], ", "))
}

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *Reason) UnmarshalText(text []byte) error {
	v, err := ParseReason(string(text))
	if err == nil {
		*r = v
	}
	return err
}
