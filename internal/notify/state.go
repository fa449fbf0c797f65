package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"banmesh/internal/history"
	"banmesh/internal/wholefile"
)

// state is everything that outlives the process, in one file.
type state struct {
	Cursor    history.Cursor       `json:"cursor"` // events up to it are in the outboxes
	Outboxes  map[string]*outbox   `json:"outboxes"`
	Standings map[string]*standing `json:"standings"`
	Week      week                 `json:"week"`
}

// maxState bounds the file, in bytes: twenty receivers with ten kinds of twenty
// notices, twice.
const maxState = 32 << 20

// readState reads the file; one that is not there is an empty state.
func readState(path string) (s state, err error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil:
		var b []byte
		b, err = io.ReadAll(io.LimitReader(f, maxState))
		if err = errors.Join(err, f.Close()); err == nil {
			if err = json.Unmarshal(b, &s); err != nil {
				s = state{}
				err = fmt.Errorf("reading %s: %w", path, err)
			}
		}
	}
	if s.Outboxes == nil {
		s.Outboxes = map[string]*outbox{}
	}
	if s.Standings == nil {
		s.Standings = map[string]*standing{}
	}
	for name, o := range s.Outboxes {
		if o == nil {
			delete(s.Outboxes, name)
			continue
		}
		o.sound()
	}
	for key, x := range s.Standings {
		if x == nil {
			delete(s.Standings, key)
		}
	}
	return s, err
}

// sound drops from a damaged outbox the parts that nothing could have written.
func (o *outbox) sound() {
	for k, p := range o.Pending {
		if _, ok := ParseKind(string(k)); !ok || p.size() == 0 || len(p.Notices) == 0 {
			delete(o.Pending, k)
		}
	}
}

func writeState(path string, s *state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the messages that wait: %w", err)
	}
	if err := wholefile.Write(path, b, 0o600); err != nil {
		return fmt.Errorf("keeping the messages that wait: %w", err)
	}
	return nil
}
