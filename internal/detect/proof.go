package detect

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Proof says whether an offence came over a connection of the address that
// its line names. It is the kernel's word and never a definition's.
type Proof uint8

// The proofs.
const (
	// ProofUnknown says that nobody can be asked: the line is believed here, and
	// bans that rest on it are weak to others.
	ProofUnknown Proof = iota
	// ProofDenied says that there was no such connection: the line is forged, or
	// about somebody else, and counts for nothing.
	ProofDenied
	// ProofConfirmed says that there was one.
	ProofConfirmed
)

// A Question is about the connection that a line or a report tells of.
type Question struct {
	Topic ban.Topic
	// From is the client's address, with its port where the line names it, else 0.
	From netip.AddrPort
	// At is when it was written.
	At time.Time
}
