package detect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
)

// stateVersion is the form of the state file; another one is refused.
const stateVersion = 1

// maxState bounds the file that is read back: the largest that a full
// detector writes has half of it.
const maxState = 256 << 20

// A state is what a detector saves.
type state struct {
	Version  int                      `json:"version"`
	Position source.Position          `json:"position"`
	Jails    map[ban.Topic]*jailState `json:"jails"`
	Pending  []Decision               `json:"pending,omitempty"`
}

type jailState struct {
	Found   uint64                  `json:"found"`
	Banned  uint64                  `json:"banned"`
	Ignored uint64                  `json:"ignored"`
	Tracked []entryState            `json:"tracked"`
	Bans    map[ban.Target]banCount `json:"bans,omitempty"`
}

type entryState struct {
	Target      ban.Target `json:"t"`
	First       int64      `json:"f"`
	Last        int64      `json:"l"`
	Hits        float64    `json:"h"`
	Seen        uint32     `json:"n"`
	Established bool       `json:"e,omitempty"`
}

// load reads the state file. One that does not exist is an empty state; one
// that cannot be read as written is an error, because starting over would
// count lines twice or lose them.
func load(path string) (*state, error) {
	empty := &state{Version: stateVersion}
	if path == "" {
		return empty, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return empty, nil
	case err != nil:
		return nil, fmt.Errorf("reading the detection state: %w", err)
	case info.Size() > maxState:
		return nil, fmt.Errorf("%s: %w: it has %d bytes", path, ErrState, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the detection state: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrState, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%s: %w: its version is %d, not %d", path, ErrState, s.Version, stateVersion)
	}
	return &s, nil
}

// restore puts a saved state into the jails that still exist.
func (d *Detector) restore(s *state) {
	for _, j := range d.jails {
		saved := s.Jails[j.topic]
		if saved == nil {
			continue
		}
		j.counts.found, j.counts.banned, j.counts.ignored = saved.Found, saved.Banned, saved.Ignored
		for t, c := range saved.Bans {
			j.bans[t] = c
		}
		for _, e := range saved.Tracked {
			if e.Target.IsZero() {
				continue
			}
			kept := j.window.add(e.Target, time.Unix(0, e.Last), e.Hits, e.Established)
			kept.first, kept.hits, kept.seen, kept.established = e.First, e.Hits, e.Seen, e.Established
		}
	}
	for _, v := range s.Pending {
		d.pending[pendingKey{v.Topic, v.Target}] = v
	}
}

// Save writes positions and counters, as they belong together, to the state
// file. The file is whole at every moment, also when the power fails.
func (d *Detector) Save() error {
	if d.o.StatePath == "" {
		return nil
	}
	d.saveMu.Lock()
	defer d.saveMu.Unlock()
	s := &state{Version: stateVersion, Jails: map[ban.Topic]*jailState{}}
	d.checkpoint(d.readers, s)
	err := writeFile(d.o.StatePath, s)
	d.saveError = err
	if err == nil {
		d.lastSaved = d.o.Now()
	}
	return err
}

// checkpoint takes everything while no line is handled: each reader is held
// while the next one is asked.
func (d *Detector) checkpoint(rest []*reader, s *state) {
	if len(rest) == 0 {
		d.collect(s)
		return
	}
	rest[0].source.Checkpoint(func(p source.Position) {
		s.Position.Time = p.Time
		s.Position.Files = append(s.Position.Files, p.Files...)
		s.Position.Docker = append(s.Position.Docker, p.Docker...)
		s.Position.Journal = append(s.Position.Journal, p.Journal...)
		d.checkpoint(rest[1:], s)
	})
}

func (d *Detector) collect(s *state) {
	for _, j := range d.jails {
		j.mu.Lock()
		saved := &jailState{Found: j.counts.found, Banned: j.counts.banned, Ignored: j.counts.ignored}
		for e := j.window.oldest; e != nil; e = e.newer {
			saved.Tracked = append(saved.Tracked, entryState{e.target, e.first, e.last, e.hits, e.seen, e.established})
		}
		if len(j.bans) > 0 {
			saved.Bans = make(map[ban.Target]banCount, len(j.bans))
			for t, c := range j.bans {
				saved.Bans[t] = c
			}
		}
		j.mu.Unlock()
		s.Jails[j.topic] = saved
	}
	d.pendingMu.Lock()
	for _, v := range d.pending {
		s.Pending = append(s.Pending, v)
	}
	d.pendingMu.Unlock()
}

// writeFile replaces a file atomically and durably.
func writeFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the detection state: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("saving the detection state: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(b)
	if err == nil {
		err = temporary.Sync()
	}
	if closing := temporary.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("saving the detection state: %w", err)
	}
	return nil
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
