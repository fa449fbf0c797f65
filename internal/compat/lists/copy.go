package lists

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
	// Entries is how many targets follow.
	Entries int    `json:"entries"`
	Sum     string `json:"sum"`
}

// copyHead is the first line of a copy on disk.
const copyHead = "banmesh list 1\n"

// Encode gives the copy as a file: a first line, a line of JSON, and a target in
// each further line.
func (c *Copy) Encode() ([]byte, error) {
	c.Entries, c.Sum = len(c.Edition.Targets), c.Edition.Sum()
	head, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	b := bytes.NewBuffer(make([]byte, 0, len(copyHead)+len(head)+16*c.Entries))
	b.WriteString(copyHead)
	b.Write(head)
	b.WriteByte('\n')
	for _, t := range c.Edition.Targets {
		b.WriteString(t.String())
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

var errCopy = errors.New("the copy of the list is damaged")

// DecodeCopy reads the bytes that [Copy.Encode] gives.
func DecodeCopy(b []byte) (*Copy, error) {
	b, ok := bytes.CutPrefix(b, []byte(copyHead))
	head, rest, whole := bytes.Cut(b, []byte{'\n'})
	if !ok || !whole {
		return nil, errCopy
	}
	c := &Copy{}
	if err := json.Unmarshal(head, c); err != nil {
		return nil, fmt.Errorf("%w: %w", errCopy, err)
	}
	if c.Entries < 0 || c.Entries > MaxEntries {
		return nil, errCopy
	}
	lines := bufio.NewScanner(bytes.NewReader(rest))
	for lines.Scan() {
		t, err := ban.ParseTarget(lines.Text())
		if _, address := t.Prefix(); err != nil || !address || len(c.Edition.Targets) == c.Entries {
			return nil, errCopy
		}
		c.Edition.Targets = append(c.Edition.Targets, t)
	}
	if lines.Err() != nil || len(c.Edition.Targets) != c.Entries || c.Edition.Sum() != c.Sum {
		return nil, errCopy
	}
	return c, nil
}
