package wire

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// An Entry is a claim as a feed holds it.
type Entry struct {
	Key  ban.Key
	End  uint32 // minutes since the Unix epoch
	Meta Meta
	// Said is when its author said so as far as this reader knows, in minutes:
	// the date of the message that carried it. It is no part of the feed.
	Said uint32
}

// A Meta is the class byte and the hits of an entry. Of the class byte the high
// bit says established, two bits are the basis and five the class.
type Meta [2]byte

// The parts of a class byte.
const (
	establishedBit = 0x80
	basisShift     = 5
	basisMask      = 3
	classMask      = byte(ban.MaxClass)
)

func metaOf(c ban.Claim) Meta {
	class := c.Class
	if class > ban.MaxClass {
		class = ban.ClassOther
	}
	basis := c.Basis
	if basis > ban.BasisDecided {
		basis = ban.BasisWeak
	}
	b := byte(class) | byte(basis)<<basisShift
	if c.Established {
		b |= establishedBit
	}
	return Meta{b, c.Hits}
}

// EntryOf gives a claim as an entry, with the end rounded up to a minute.
func EntryOf(c ban.Claim) Entry {
	return Entry{Key: ban.KeyOf(c.Target), End: minutesUp(c.End), Meta: metaOf(c)}
}

// Claim gives the claim; the key was checked when it was decoded.
func (e *Entry) Claim() ban.Claim {
	t, _ := e.Key.Target()
	b := e.Meta[0]
	return ban.Claim{
		Target: t, End: TimeOfMinute(e.End), Class: ban.Class(b & classMask), Basis: ban.Basis(b >> basisShift & basisMask),
		Hits: e.Meta[1], Established: b&establishedBit != 0,
	}
}

// SortClaims turns claims into sorted entries with one a target: of several,
// the one that ends last.
func SortClaims(claims []ban.Claim, said time.Time) []Entry {
	es := make([]Entry, 0, len(claims))
	for _, c := range claims {
		if !c.Target.IsZero() {
			e := EntryOf(c)
			e.Said = Minutes(said)
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b Entry) int {
		return cmp.Or(ban.CompareKeys(&a.Key, &b.Key), cmp.Compare(b.End, a.End), bytes.Compare(b.Meta[:], a.Meta[:]))
	})
	return slices.CompactFunc(es, func(a, b Entry) bool { return a.Key == b.Key })
}

// ClaimsOf gives the claims of entries.
func ClaimsOf(es []Entry) []ban.Claim {
	out := make([]ban.Claim, len(es))
	for i := range es {
		out[i] = es[i].Claim()
	}
	return out
}
