package settings

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/topics"
)

// Jails gives the topics whose offenders are looked for here.
func (s *Settings) Jails() (list []detect.Jail) {
	for _, t := range s.topics {
		if t.Detect {
			list = append(list, detect.Jail{Definition: t.Definition, Simulate: t.Simulate})
		}
	}
	return list
}

// CheckFilters compiles every filter that the settings use and looks at their
// sources, and keeps nothing. Definitions that were left out are errors here.
func (s *Settings) CheckFilters() error {
	_, err := detect.New(detect.Options{Jails: s.Jails(), Ban: func(context.Context, detect.Decision) error { return nil }})
	return errors.Join(append(slices.Clone(s.broken), err)...)
}

// leaveOut goes on without a topic's definition, and says so. A neighbour's
// definition, or a typing error, must not stop a node that guards other topics.
func (s *Settings) leaveOut(topic ban.Topic, why error) {
	s.leftOut[topic] = true
	s.broken = append(s.broken, why)
	s.warn("left out: the definition of %s: %v", topic, why)
}

// leaveOutUnusable leaves out definitions whose filter does not compile.
func (s *Settings) leaveOutUnusable(dir string, own map[ban.Topic]bool) {
	var doubtful []string
	defer func() {
		if why := detect.Unproven(doubtful); why != "" {
			s.warn("%s", why)
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(s.definitions)) {
		d := s.definitions[name]
		foreign := d.Detect != nil && (d.Detect.Fail2ban != "" || s.Included(name) != "" || own[name] && Imported(dir, name))
		if d.Detect == nil || !own[name] && !foreign {
			continue
		}
		err := detect.FollowFilter(d)
		if err == nil {
			err = detect.Usable(d)
		}
		if err == nil {
			list, doubt := detect.Warnings(d, foreign)
			for _, w := range list {
				s.warn("topic %s: %s", name, w)
			}
			if doubt {
				doubtful = append(doubtful, string(name))
			}
			continue
		}
		s.leaveOut(name, err)
		d.Detect = nil
		if !shipped(name) {
			delete(s.definitions, name)
		}
	}
}

// ImportHead begins the definitions that an import of fail2ban's jails wrote.
const ImportHead = "# Written by `agent import fail2ban`"

// Imported says that a definition of the operator's directory was imported.
func Imported(dir string, name ban.Topic) bool {
	f, err := os.Open(filepath.Join(dir, TopicDirectory, string(name)+".toml"))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(ImportHead))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == ImportHead
}

// shipped says that the program brings a definition of the topic.
func shipped(name ban.Topic) bool {
	return slices.ContainsFunc(topics.Builtin(), func(d *topics.Definition) bool { return d.Name == name })
}

// BanTime is how long a ban by hand lasts in a topic.
func (s *Settings) BanTime(topic ban.Topic) time.Duration {
	if t, ok := s.Find(topic); ok && t.Definition.Detect != nil && !t.Definition.Detect.BanTime.IsZero() {
		return t.Definition.Detect.BanTime.Duration()
	}
	return defaultBanTime
}

// defaultBanTime is fail2ban's usual long ban.
const defaultBanTime = 24 * time.Hour
