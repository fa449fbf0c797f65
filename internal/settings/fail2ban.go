package settings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/topics"
)

// Fail2banJails reads the enabled jails of a fail2ban directory as topics that
// Find the same offenders and close the same ports to them. Jails that are
// wrong are in the error, joined; the others are given all the same.
//
// anyway names jails whose actions have no known effect and that ban nevertheless, on
// the ports of the jail.
func Fail2banJails(dir string, anyway ...string) ([]detect.Imported, error) {
	jails, err := detect.ImportJails(dir)
	for i := range jails {
		j := &jails[i]
		meant := meaningOf(j)
		j.Warnings = append(j.Warnings, meant.warnings...)
		j.Definition.Enforce = meant.enforce
		switch {
		case j.Refused.Given():
		case meant.lets != "":
			j.Refused = detect.JailWarning{Place: j.Place, Text: meant.lets + " lets through whom the jail finds, and nobody is banned for it"}
		case meant.bans:
		case slices.Contains(anyway, j.Jail):
			fault := ""
			if j.Definition.Enforce, fault = jailPorts(j); fault != "" {
				j.Warnings = append(j.Warnings, detect.JailWarning{Place: j.PortPlace, Text: fault})
			}
		default:
			j.FoundOnly = detect.JailWarning{Place: j.Place, Text: meant.why}
			j.Definition.Enforce, _ = jailPorts(j)
		}
	}
	useShipped(jails)
	return jails, err
}

// useShipped lets the shipped topics stand for jails that ban by a filter of
// fail2ban's which they do better. Of several jails it is the one of the topic's name,
// else the first; a topic whose name another jail has stays that jail's.
func useShipped(jails []detect.Imported) {
	taken := map[ban.Topic]bool{}
	for _, j := range jails {
		if !j.Refused.Given() && j.Definition.Name != j.Replacement {
			taken[j.Definition.Name] = true
		}
	}
	for _, named := range []bool{true, false} {
		for i := range jails {
			j := &jails[i]
			if j.Replacement == "" || j.Shipped || j.Refused.Given() || j.FoundOnly.Given() || taken[j.Replacement] || named && j.Definition.Name != j.Replacement {
				continue
			}
			taken[j.Replacement] = true
			j.UseShipped()
		}
	}
}

// ranges writes sorted ports as definitions do.
func ranges(ports []uint16) (out []string) {
	for i := 0; i < len(ports); {
		j := i
		for j+1 < len(ports) && ports[j+1] == ports[j]+1 {
			j++
		}
		switch text := strconv.Itoa(int(ports[i])); {
		case j > i:
			out = append(out, text+"-"+strconv.Itoa(int(ports[j])))
		default:
			out = append(out, text)
		}
		i = j + 1
	}
	return out
}

// An included jail is a topic because `include` names a directory of
// fail2ban's that enables it.
type included struct {
	from    string // the directory
	jail    string
	opaque  bool // a definition of the operator's own has its name
	defined *topics.Definition
	// foundOnly says that none of the jail's actions is known to ban anybody.
	foundOnly bool
}

// include lays the jails of the directories that the configuration includes
// over the shipped definitions. Definitions below dir that the operator wrote
// stand, and so do jails that came first; a definition that is left out is a warning, and a
// directory that cannot be read a fault.
func (s *Settings) include(dir string, directories []string) (faults []error) {
	for _, from := range directories {
		if !filepath.IsAbs(from) {
			faults = append(faults, s.config.At("include", "%q is no absolute path", from))
			continue
		}
		if _, err := os.Stat(filepath.Join(from, "jail.conf")); err != nil {
			faults = append(faults, s.config.At("include", "%s is no configuration of fail2ban: %v", from, errors.Unwrap(err)))
			continue
		}
		jails, err := Fail2banJails(from)
		for _, e := range flatten(err) {
			s.warn("left out: %v", e)
		}
		if len(jails) == 0 && err == nil {
			s.warn("%s enables no jail", from)
		}
		s.warnOf(jails)
		for _, j := range jails {
			if j.Refused.Given() {
				continue
			}
			name := j.Definition.Name
			in := included{from: from, jail: j.Jail, defined: j.Definition, foundOnly: j.FoundOnly.Given()}
			if before, ok := s.included[name]; ok {
				s.warn("left out: jail %s of %s: the topic %s is jail %s of %s already", j.Jail, from, name, before.jail, before.from)
				continue
			}
			if own := filepath.Join(dir, TopicDirectory, string(name)+".toml"); exists(own) {
				s.warn("left out: jail %s: %s defines the topic", j.Jail, own)
				in.opaque = true
			} else {
				s.definitions[name] = j.Definition
			}
			s.included[name] = in
		}
	}
	return faults
}

// warnOf notes a warning of jails: one cause, one line.
func (s *Settings) warnOf(jails []detect.Imported) {
	shared, alone := detect.SharedWarnings(jails)
	for _, line := range shared {
		s.warn("%s", line)
	}
	for _, j := range jails {
		for _, w := range j.Warnings {
			if alone(w) {
				s.warn("jail %s: %s", j.Jail, w)
			}
		}
	}
	refused, found := detect.NotBanning(jails)
	for _, line := range refused.Lines("jail ") {
		s.warn("left out: %s", line)
	}
	for _, line := range found.Lines("jail ") {
		s.warn("bans nobody: %s; simulate = false below [topics.NAME] bans all the same", line)
	}
}

// warn notes something that was read and has no effect.
func (s *Settings) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

// Warnings name, with file and line, the settings that have no effect.
func (s *Settings) Warnings() []string { return s.warnings }

// Included says from which fail2ban directory a topic's detection comes, ""
// for none.
func (s *Settings) Included(topic ban.Topic) string {
	if in, ok := s.included[topic]; ok && !in.opaque {
		return in.from
	}
	return ""
}

// Definitions gives the definition of every topic with the configuration's
// changes laid over it, by name.
func (s *Settings) Definitions() (list []*topics.Definition) {
	for _, t := range s.topics {
		list = append(list, t.Definition)
	}
	return list
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// flatten gives the errors that were joined.
func flatten(err error) (list []error) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, flatten(e)...)
		}
		return list
	}
	return []error{err}
}
