// Package pairing lets two machines of one person meet over a code that is read
// aloud: the one that has the operator's root key certifies the node key of the
// other and hands over where the network is. No secret key leaves its machine.
//
// Both derive a key from the code by CPace, a balanced password-authenticated key
// exchange. Whoever listens learns nothing of the code, and whoever stands between
// or calls in its place has one guess a connection; the host ends after [MaxWrong]
// wrong ones. All that follows is sealed with that key.
package pairing

import (
	"errors"
	"time"
)

// Port is where a host listens unless told otherwise.
const Port = 7935

// Limits of a pairing. A code has 32 bits, so MaxWrong guesses hit it once in
// 1.4 billion.
const (
	// MaxWrong wrong codes end a pairing.
	MaxWrong = 3
	// Life is how long a code is good unless told otherwise: time to walk to
	// another terminal.
	Life = 10 * time.Minute
	// stepTime bounds each step of the exchange that waits for the other side's
	// program, and none that waits for a person.
	stepTime = 10 * time.Second
	// maxConns are served at once; further callers are turned away unread.
	maxConns = 8
	// maxFrame bounds a sealed message: a card with all its nodes is the largest part.
	maxFrame = 256 << 10
)

// Faults that a person is told about.
var (
	// ErrCode says that the two sides do not have the same code: it was typed wrong,
	// or somebody stands in between.
	ErrCode = errors.New("the code is not the one that the other machine shows")
	// ErrTries says that a pairing ended after too many wrong codes.
	ErrTries = errors.New("too many wrong codes")
	// ErrExpired says that nobody came while the code was good.
	ErrExpired = errors.New("nobody came with the code in time")
	// ErrProtocol says that the other side speaks something else.
	ErrProtocol = errors.New("the other side does not speak this version of the pairing protocol")
	// ErrRefused says that the other side ended the pairing, and why.
	ErrRefused = errors.New("the other machine refused")
)
