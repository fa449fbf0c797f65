package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kind is a kind of log that a [Spec] can name.
type Kind string

// The kinds.
const (
	KindFile      Kind = "file"
	KindJournal   Kind = "journal"
	KindContainer Kind = "container"
	KindSyslog    Kind = "syslog"
	KindStdin     Kind = "stdin"
)

// A Log is one entry of a spec: a file pattern, a journal match, a container, a
// listener, or standard input.
type Log struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Index is its place among the spec's entries of its kind, as in
	// [Line.Matched].
	Index int `json:"-"`
}

// Logs gives the entries of a spec, by kind.
func (s Spec) Logs() (list []Log) {
	add := func(k Kind, names ...string) {
		for i, name := range names {
			list = append(list, Log{k, name, i})
		}
	}
	add(KindFile, s.Files...)
	add(KindJournal, s.Journal...)
	add(KindContainer, s.Docker...)
	add(KindSyslog, s.Syslog...)
	if s.Stdin {
		add(KindStdin, "standard input")
	}
	return list
}

// A Health says whether a log is there and may be read, now.
type Health struct {
	// Found counts its files, or the journal's; -1 where that is no question.
	Found int `json:"found"`
	// Paths are the files.
	Paths []string `json:"-"`
	// Denied is the first file or directory that this process may not read or
	// look into, and that may hold the log.
	Denied string `json:"denied,omitempty"`
	// Driver is Docker's log driver of a container whose log is in no file that
	// can be read: "none", "journald", "syslog", ...
	Driver string `json:"driver,omitempty"`
	// Error is why it cannot be read, where neither of these is it.
	Error string `json:"error,omitempty"`
}

// Look gives the health of each of a spec's [Spec.Logs], by looking at the files
// and containers that are there. It reads no log.
func Look(s Spec, o Options) []Health {
	var out []Health
	var containers []dockerContainer
	var hidden string
	if slices.ContainsFunc(s.Docker, func(name string) bool { return !strings.Contains(name, "/") }) {
		containers, hidden = listContainers(o)
	}
	var journal *Health
	for _, l := range s.Logs() {
		switch l.Kind {
		case KindFile:
			out = append(out, lookAtFiles(l.Name))
		case KindJournal:
			if journal == nil {
				h := lookAtJournal(s)
				journal = &h
			}
			out = append(out, *journal)
		case KindContainer:
			if strings.Contains(l.Name, "/") {
				out = append(out, lookAtFiles(l.Name))
			} else {
				out = append(out, lookAtContainers(l.Name, containers, hidden))
			}
		default:
			out = append(out, Health{Found: -1})
		}
	}
	return out
}

// maxLooked bounds the files of one pattern that are looked at.
const maxLooked = 4096

// lookAtFiles looks at the files that a pattern names.
func lookAtFiles(glob string) (h Health) {
	paths, err := filepath.Glob(glob)
	if err != nil {
		h.Error = err.Error()
		return h
	}
	for _, path := range paths[:min(len(paths), maxLooked)] {
		if compressed(path) && path != glob {
			continue
		}
		h.lookAtFile(path, path == glob)
	}
	if h.Denied == "" {
		h.Denied = deniedOnTheWay(glob)
	}
	return h
}

// lookAtFile counts a file that may be read.
func (h *Health) lookAtFile(path string, named bool) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() && !named {
		return // beside the files that a pattern names
	}
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err == nil {
		err = mayRead(path)
	}
	switch {
	case err == nil:
		h.Found++
		h.Paths = append(h.Paths, path)
	case errors.Is(err, fs.ErrPermission):
		h.Found++
		if h.Denied == "" {
			h.Denied = path
		}
	case errors.Is(err, fs.ErrNotExist): // it went between two looks
	case h.Error == "" && errors.Is(err, errNotRegular):
		h.Error = path + ": " + err.Error()
	case h.Error == "":
		h.Error = err.Error()
	}
}

// mayRead says whether this process may open a file, without blocking on a
// pipe.
func mayRead(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return unix.Close(fd)
}

// deniedOnTheWay gives the first directory on the way of a pattern that this
// process may not look into, "" if there is none: [filepath.Glob] passes over
// them in silence.
func deniedOnTheWay(glob string) string {
	at := []string{"/"}
	if !filepath.IsAbs(glob) {
		at = []string{"."}
	}
	parts := strings.Split(strings.Trim(filepath.Clean(glob), "/"), "/")
	for i, part := range parts {
		var next []string
		for _, dir := range at {
			if !strings.ContainsAny(part, `*?[\`) {
				_, err := os.Stat(filepath.Join(dir, part))
				if errors.Is(err, fs.ErrPermission) {
					return dir
				}
				if err == nil {
					next = append(next, filepath.Join(dir, part))
				}
				continue
			}
			names, err := namesOf(dir)
			if errors.Is(err, fs.ErrPermission) {
				return dir
			}
			for _, name := range names {
				if ok, _ := filepath.Match(part, name); ok && len(next) < maxLooked {
					next = append(next, filepath.Join(dir, name))
				}
			}
		}
		if i == len(parts)-1 {
			return "" // the files themselves are looked at one by one
		}
		at = next
	}
	return ""
}

// namesOf lists a directory.
func namesOf(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(maxLooked)
}

// systemJournals are where journald puts its files.
var systemJournals = []string{"/var/log/journal", "/run/log/journal"}

// lookAtJournal looks at the journal's files. Those of users are beside the
// point.
func lookAtJournal(s Spec) (h Health) {
	dirs := s.JournalDirs
	if len(dirs) == 0 {
		dirs = systemJournals
	}
	for _, dir := range dirs {
		for _, glob := range []string{"*.journal", "*/*.journal"} {
			one := Health{}
			paths, _ := filepath.Glob(filepath.Join(dir, glob))
			for _, path := range paths[:min(len(paths), maxLooked)] {
				if !strings.HasPrefix(filepath.Base(path), "user-") && s.fileWanted(dir, path) && (s.JournalNamespace == "" || s.directoryWanted(filepath.Base(filepath.Dir(path)))) {
					one.lookAtFile(path, false)
				}
			}
			if one.Denied == "" && one.Found == 0 {
				one.Denied = deniedOnTheWay(filepath.Join(dir, glob))
			}
			h.Found += one.Found
			h.Paths = append(h.Paths, one.Paths...)
			if h.Denied == "" {
				h.Denied = one.Denied
			}
		}
	}
	if h.Found > 0 && len(h.Paths) > 0 {
		h.Denied = "" // some are rotated away to others' eyes
	}
	return h
}

// A dockerContainer is one of the local Docker engine, as its files describe it.
type dockerContainer struct {
	name, driver, log string
}

// listContainers gives the containers of the local Docker engine, and the
// directory that hides them from this process.
func listContainers(o Options) (list []dockerContainer, hidden string) {
	root := o.DockerRoot
	if root == "" {
		root = dockerRoot
	}
	ids, err := namesOf(root)
	if errors.Is(err, fs.ErrPermission) {
		if hidden = deniedOnTheWay(filepath.Join(root, "*")); hidden == "" {
			hidden = root
		}
		return nil, hidden
	}
	slices.Sort(ids)
	for _, id := range ids {
		dir := filepath.Join(root, id)
		c := dockerContainer{log: filepath.Join(dir, id+"-json.log")}
		if _, err := namesOf(dir); errors.Is(err, fs.ErrPermission) {
			hidden = dir
			continue
		}
		c.name, _ = containerOf(dir)
		if c.driver = driverOf(dir); c.driver == localDriver {
			c.log = filepath.Join(dir, localDir, localFile)
		}
		list = append(list, c)
	}
	return list, hidden
}

// driverOf reads the log driver of the container with a directory, "" where
// Docker does not say.
func driverOf(dir string) string {
	var c struct {
		LogConfig struct{ Type string }
	}
	path := filepath.Join(dir, "hostconfig.json")
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxContainerFile {
		return ""
	}
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &c) != nil || len(c.LogConfig.Type) > maxDriver {
		return ""
	}
	return strings.ToValidUTF8(c.LogConfig.Type, "\uFFFD")
}

// maxDriver bounds the name of a log driver, which may be a plugin's.
const maxDriver = 128

// lookAtContainers looks at the containers that a pattern names.
func lookAtContainers(pattern string, all []dockerContainer, hidden string) (h Health) {
	for _, c := range all {
		if ok, err := filepath.Match(pattern, c.name); err != nil || !ok {
			continue
		}
		if c.driver != "" && c.driver != "json-file" && c.driver != localDriver {
			h.Driver = c.driver
			h.Found++
			continue
		}
		before := h.Found
		h.lookAtFile(c.log, true)
		h.Found = before + 1 // though it has logged nothing yet
	}
	if h.Found == 0 {
		h.Denied = hidden
	}
	return h
}

// Cannot says to a person why a log cannot be read, "" where nothing is wrong.
// That it is not there is nothing wrong by itself.
func (h Health) Cannot(l Log) string {
	switch {
	case h.Denied == l.Name && h.Denied != "":
		return "permission denied"
	case h.Denied != "":
		return "permission denied: " + h.Denied
	case h.Driver == "none":
		return "Docker keeps no log of it: log driver none"
	case h.Driver != "":
		return fmt.Sprintf("Docker's log driver %s writes no file that can be read", h.Driver)
	}
	return h.Error
}
