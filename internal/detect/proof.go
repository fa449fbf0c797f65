package detect

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
