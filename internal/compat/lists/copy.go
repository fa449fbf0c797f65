package lists

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A Copy is the last edition of a list that was taken: it counts until it ends or a
// newer one takes its place, whatever happens to the list meanwhile.
type Copy struct {
	// From says where the list is and how it is read. A copy that is from elsewhere is of
	// another list.
	From string `json:"from"`
	// Taken is when the edition was taken, Confirmed when its origin last had it.
	Taken     time.Time `json:"taken"`
	Confirmed time.Time `json:"confirmed"`
	Edition   Edition   `json:"edition"`
	// Entries is how many targets the edition has, also where they are not in memory.
	Entries int    `json:"entries"`
	Sum     string `json:"sum"`
}

// Encode gives the copy as a file.
func (c *Copy) Encode() ([]byte, error) {
	c.Entries, c.Sum = len(c.Edition.Targets), c.Edition.Sum()
	return json.Marshal(c)
}

var errCopy = errors.New("the copy of the list is damaged")

// DecodeCopy reads the bytes that [Copy.Encode] gives.
func DecodeCopy(b []byte) (*Copy, error) {
	c := &Copy{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: %w", errCopy, err)
	}
	noAddress := func(t ban.Target) bool { _, address := t.Prefix(); return !address }
	if len(c.Edition.Targets) != c.Entries || c.Edition.Sum() != c.Sum || slices.ContainsFunc(c.Edition.Targets, noAddress) {
		return nil, errCopy
	}
	return c, nil
}
