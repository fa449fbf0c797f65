package ledger

import (
	"iter"
	"time"

	"banmesh/internal/ban"
)

// vote is a claim in a record's list: 16 bytes without pointers, because there
// may be millions of them. Times are Unix seconds. [vote.claim] and
// [vote.setClaim] are all that knows how a claim is packed.
type vote struct {
	link  uint32 // place of the record's next vote, plus one, in the high 24 bits; the class in the low 8
	end   uint32
	since uint32 // when it arrived here; of an own claim, when the offence was
	feed  uint16
	hits  uint8
	flags uint8
}

// The bits of vote.flags.
const (
	basisMask       = 0x03
	flagEstablished = 0x04
	flagGeneration  = 0x08 // which of the feed's resets repeated the claim last
	holdShift       = 6    // the two highest bits say whether it waits
)

func (v *vote) next() uint32 { return v.link >> 8 }

func (v *vote) setNext(place uint32) { v.link = place<<8 | v.link&0xff }

func (v *vote) class() ban.Class { return ban.Class(v.link & 0xff) }

// claim gives the vote as the claim that it is of a target.
func (v *vote) claim(t ban.Target) ban.Claim {
	return ban.Claim{Target: t, End: time.Unix(int64(v.end), 0), Class: v.class(), Hits: v.hits, Established: v.has(flagEstablished), Basis: ban.Basis(v.flags & basisMask)}
}

// setClaim packs a claim, all but its target.
func (v *vote) setClaim(c ban.Claim) {
	v.end, v.hits = seconds(c.End), c.Hits
	v.link = v.link&^0xff | uint32(c.Class)
	v.set(flagEstablished, c.Established)
	v.flags = v.flags&^basisMask | uint8(c.Basis)&basisMask
}

// says reports whether the vote is this claim already.
func (v *vote) says(c ban.Claim) bool {
	packed := *v
	packed.setClaim(c)
	return packed == *v
}

// hold says whether a claim waits, and for whom.
type hold uint8

const (
	counted  hold = iota // it does not wait
	queued               // for room in its operator's budget
	guarded              // for a person's approval
	rejected             // for its author to withdraw it
)

func (v *vote) hold() hold { return hold(v.flags >> holdShift) }

func (v *vote) setHold(h hold) { v.flags = v.flags&(1<<holdShift-1) | uint8(h)<<holdShift }

func (v *vote) has(flag uint8) bool { return v.flags&flag != 0 }

func (v *vote) set(flag uint8, on bool) {
	if on {
		v.flags |= flag
	} else {
		v.flags &^= flag
	}
}

func (v *vote) inForce(now time.Time) bool { return int64(v.end) > now.Unix() }

// votesOf gives the votes of a record. None may be added or removed meanwhile.
func (t *table) votesOf(r uint32) iter.Seq[*vote] {
	return func(yield func(*vote) bool) {
		for i := t.all.at(r).votes; i != 0; {
			v := t.votes.at(i - 1)
			if !yield(v) {
				return
			}
			i = v.next()
		}
	}
}

// vote gives the feed's vote in a record's list, or nil.
func (t *table) vote(r uint32, feed uint16) *vote {
	for v := range t.votesOf(r) {
		if v.feed == feed {
			return v
		}
	}
	return nil
}

// addVote puts a vote of the feed, which has none, into the record's list.
func (t *table) addVote(r uint32, feed uint16) *vote {
	var i uint32
	if n := len(t.freeVotes); n > 0 {
		i, t.freeVotes = t.freeVotes[n-1], t.freeVotes[:n-1]
	} else {
		i = t.votes.add()
	}
	v, rec := t.votes.at(i), t.all.at(r)
	*v = vote{feed: feed}
	v.setNext(rec.votes)
	rec.votes = i + 1
	t.live++
	return v
}

// removeVote takes the feed's vote out of the record's list.
func (t *table) removeVote(r uint32, feed uint16) bool {
	rec := t.all.at(r)
	var before *vote
	for i := rec.votes; i != 0; {
		v := t.votes.at(i - 1)
		if v.feed != feed {
			before, i = v, v.next()
			continue
		}
		if before == nil {
			rec.votes = v.next()
		} else {
			before.setNext(v.next())
		}
		*v = vote{}
		t.freeVotes = append(t.freeVotes, i-1)
		t.live--
		return true
	}
	return false
}
