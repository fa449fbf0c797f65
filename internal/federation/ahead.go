package federation

import "time"

// Ahead says whether the message claims to come from a future that no clock
// that is merely wrong explains: readers and brokers refuse it alike.
func (h Header) Ahead(now time.Time) bool {
	return h.Issued.After(now.Add(MaxAhead)) || h.Epoch>>epochShift > uint64(seconds(now.Add(MaxEpochAhead)))
}
