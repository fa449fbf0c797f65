package wire

import (
	"errors"
	"slices"

	"banmesh/internal/ban"
)

// A Withdrawal is a [ban.Withdrawal] as a feed carries it.
type Withdrawal struct {
	Key    ban.Key
	Reason ban.Reason
}

// WithdrawalOf gives a withdrawal of a target. A reason that the wire cannot
// carry becomes [ban.ReasonEnded].
func WithdrawalOf(w ban.Withdrawal) Withdrawal {
	if w.Reason > ban.MaxReason {
		w.Reason = ban.ReasonEnded
	}
	return Withdrawal{ban.KeyOf(w.Target), w.Reason}
}

// Withdrawals gives the withdrawals with their targets; the keys were checked
// when they were decoded.
func Withdrawals(down []Withdrawal) []ban.Withdrawal {
	out := make([]ban.Withdrawal, len(down))
	for i := range down {
		out[i].Target, _ = down[i].Key.Target()
		out[i].Reason = down[i].Reason
	}
	return out
}

// Ended gives withdrawals of claims that are over.
func Ended(keys []ban.Key) []Withdrawal {
	out := make([]Withdrawal, len(keys))
	for i := range keys {
		out[i].Key = keys[i]
	}
	return out
}

// CompareWithdrawals orders withdrawals by their keys.
func CompareWithdrawals(a, b Withdrawal) int { return ban.CompareKeys(&a.Key, &b.Key) }

// Settle makes up and down sorted and disjoint: a target in both is withdrawn,
// and of two withdrawals of a target the first counts.
func Settle(up []Entry, down []Withdrawal) ([]Entry, []Withdrawal) {
	slices.SortStableFunc(down, CompareWithdrawals)
	down = slices.CompactFunc(down, func(a, b Withdrawal) bool { return a.Key == b.Key })
	up = slices.DeleteFunc(up, func(e Entry) bool {
		_, found := slices.BinarySearchFunc(down, e.Key, func(w Withdrawal, k ban.Key) int { return ban.CompareKeys(&w.Key, &k) })
		return found
	})
	return up, down
}

// mixedReasons says that each withdrawal has a reason of its own.
const mixedReasons = byte(ban.MaxReason) + 1

// appendWithdrawals writes sorted withdrawals as columns:
//
//	keys | reason u8 | per withdrawal, where the reason is 255: reason u8
//
// The reason is that of all, or 255 where they differ. All after the keys is
// missing where there are none.
func appendWithdrawals(b []byte, down []Withdrawal) []byte {
	b = appendKeys(b, len(down), func(i int) *ban.Key { return &down[i].Key })
	if len(down) == 0 {
		return b
	}
	first := down[0].Reason
	if !slices.ContainsFunc(down, func(w Withdrawal) bool { return w.Reason != first }) {
		return append(b, byte(first))
	}
	b = append(b, mixedReasons)
	for i := range down {
		b = append(b, byte(down[i].Reason))
	}
	return b
}

// withdrawals reads the bytes of appendWithdrawals. That the coding is the only
// one is checked by the message that contains it.
func (d *Decoder) withdrawals(most int) (down []Withdrawal) {
	n := d.keys(most, func(k *ban.Key) { down = append(down, Withdrawal{Key: *k}) })
	if n == 0 || d.err != nil {
		return nil
	}
	all := d.U8()
	if all != mixedReasons {
		for i := range down {
			down[i].Reason = ban.Reason(all)
		}
		return down
	}
	for i, reason := range d.Take(n) {
		if reason == mixedReasons {
			d.fail(errors.New("a reason is out of range"))
		}
		down[i].Reason = ban.Reason(reason)
	}
	return down
}
