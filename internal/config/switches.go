package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banmesh/internal/strict"
)

// SwitchesFile keeps the switches of topics that a person set on the page, below the state
// directory: the service may not write its configuration. It wins over the
// configuration's files, and holds nothing but switches: whoever gets into the agent
// cannot make it trust anybody by it.
const SwitchesFile = "switches.toml"

// switchesHead begins the file.
const switchesHead = "# Switches of topics that were set on the page. They win over the configuration's files;\n# `agent topics` takes the ones that it sets out of here.\n\n"

// maxSwitches bounds the file, in bytes.
const maxSwitches = 256 << 10

// Switches are those that were set on the page, by topic.
type Switches struct {
	Topics map[string]Switch `toml:"topics"`
}

// A Switch has the settings of one topic; nil is as in the configuration's files.
type Switch struct {
	Detect    *bool `toml:"detect"`
	Subscribe *bool `toml:"subscribe"`
	Publish   *bool `toml:"publish"`
}

// Field gives the place of a switch by its name, nil for a name that is none.
func (s *Switch) Field(name string) **bool {
	return map[string]**bool{"detect": &s.Detect, "subscribe": &s.Subscribe, "publish": &s.Publish}[name]
}

// Set names the switches that were set.
func (s *Switch) Set() (names []string) {
	for _, name := range []string{"detect", "subscribe", "publish"} {
		if *s.Field(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// ReadSwitches reads the file of a state directory; without one, or for "", nothing was
// set. A file that holds anything else is a fault.
func ReadSwitches(state string) (s Switches, err error) {
	if state == "" {
		return s, nil
	}
	path := filepath.Join(state, SwitchesFile)
	data, err := strict.Read(path, maxSwitches)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s, _, err = strict.Decode[Switches](path, data)
	return s, err
}

// SetSwitch sets a switch of a topic in the file, or takes it out for a nil value, and
// gives the value of before. It is safe beside another process that does the same.
func SetSwitch(state, topic, field string, value *bool) (before *bool, err error) {
	dir, err := os.Open(state)
	if errors.Is(err, fs.ErrNotExist) && value == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("setting a switch: %w", err)
	}
	defer dir.Close() // which unlocks it
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("setting a switch: %w", err)
	}
	s, err := ReadSwitches(state)
	if err != nil {
		return nil, err
	}
	x := s.Topics[topic]
	at := x.Field(field)
	if at == nil {
		return nil, fmt.Errorf("%q is no switch of a topic", field)
	}
	before = *at
	if before == nil && value == nil {
		return nil, nil
	}
	*at = value
	if s.Topics == nil {
		s.Topics = map[string]Switch{}
	}
	if s.Topics[topic] = x; len(x.Set()) == 0 {
		delete(s.Topics, topic)
	}
	return before, s.write(filepath.Join(state, SwitchesFile))
}

func (s *Switches) write(path string) error {
	if len(s.Topics) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing %s: %w", path, err)
		}
		return nil
	}
	tree := map[string]any{}
	for topic, x := range s.Topics {
		for _, name := range x.Set() {
			Table(tree, "topics", topic)[name] = **x.Field(name)
		}
	}
	b, err := strict.Encode(tree)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return WriteAtomic(path, append([]byte(switchesHead), b...), 0o644)
}
