package detect

import (
	"path/filepath"
	"slices"

	"banmesh/internal/detect/source"
)

// A readerGroup is a set of jails that share logs, with those logs.
type readerGroup struct {
	jails                  []*jail
	spec                   source.Spec
	files, journal, docker [][]int
	syslog                 [][]int
	stdin                  []int
}

// start gives the start that all of the group's jails wish, "" where they differ.
func (g *readerGroup) start() string {
	for _, j := range g.jails[1:] {
		if j.def.Detect.Start != g.jails[0].def.Detect.Start {
			return ""
		}
	}
	return g.jails[0].def.Detect.Start
}

// inputs are a jail's logs on this machine: the journal where there is
// one, else files; both where its definition says so.
func (j *jail) inputs(journalPresent bool) source.Spec {
	d := j.def.Detect
	s := source.Spec{Docker: d.Docker, Syslog: d.Syslog, Stdin: d.Stdin}
	useJournal := len(d.Journal) > 0 && (journalPresent || len(d.Files) == 0 || len(d.JournalDirs) > 0)
	if useJournal {
		s.Journal, s.JournalDirs, s.JournalNamespace, s.JournalFiles = d.Journal, d.JournalDirs, d.JournalNamespace, d.JournalFiles
	}
	if !useJournal || d.Both {
		s.Files = d.Files
	}
	return s
}

// groups joins jails that have a log pattern in common. All that read one
// journal are one group. A jail that reads a journal of its own and a file that others read who
// read another journal would join the two: it reads the journal alone.
func groups(jails []*jail, journalPresent bool) []*readerGroup {
	parent := make([]int, len(jails))
	for i := range parent {
		parent[i] = i
	}
	root := func(i int) int {
		for parent[i] != i {
			i = parent[i]
		}
		return i
	}
	specs := make([]source.Spec, len(jails))
	owner := map[string]int{}
	for i, j := range jails {
		specs[i] = j.inputs(journalPresent)
		if specs[i].OwnJournal() {
			specs[i].Files, specs[i].Docker, specs[i].Syslog, specs[i].Stdin = nil, nil, nil, false
		}
		for _, key := range keys(specs[i]) {
			if first, ok := owner[key]; ok {
				parent[root(i)] = root(first)
			} else {
				owner[key] = i
			}
		}
	}
	byRoot := map[int]*readerGroup{}
	var out []*readerGroup
	for i, j := range jails {
		if len(keys(specs[i])) == 0 {
			continue
		}
		g := byRoot[root(i)]
		if g == nil {
			g = &readerGroup{}
			byRoot[root(i)] = g
			out = append(out, g)
		}
		index := len(g.jails)
		g.jails = append(g.jails, j)
		g.spec.Files, g.files = join(g.spec.Files, g.files, specs[i].Files, index)
		if len(specs[i].Journal) > 0 {
			g.spec.JournalDirs, g.spec.JournalNamespace, g.spec.JournalFiles = specs[i].JournalDirs, specs[i].JournalNamespace, specs[i].JournalFiles
		}
		g.spec.Journal, g.journal = join(g.spec.Journal, g.journal, specs[i].Journal, index)
		g.spec.Docker, g.docker = join(g.spec.Docker, g.docker, specs[i].Docker, index)
		g.spec.Syslog, g.syslog = join(g.spec.Syslog, g.syslog, specs[i].Syslog, index)
		if specs[i].Stdin {
			g.spec.Stdin = true
			g.stdin = append(g.stdin, index)
		}
	}
	return out
}

func keys(s source.Spec) []string {
	var out []string
	if len(s.Journal) > 0 {
		out = append(out, "journal "+s.JournalKey())
	}
	for _, f := range s.Files {
		out = append(out, "file "+f)
	}
	for _, d := range s.Docker {
		out = append(out, "docker "+d)
	}
	for _, a := range s.Syslog {
		out = append(out, "syslog "+a)
	}
	if s.Stdin {
		out = append(out, "stdin")
	}
	return out
}

// join adds a jail's patterns to a group's, and notes which jail wants which.
func join(patterns []string, wants [][]int, more []string, index int) ([]string, [][]int) {
	for _, m := range more {
		i := slices.Index(patterns, m)
		if i < 0 {
			i = len(patterns)
			patterns, wants = append(patterns, m), append(wants, nil)
		}
		wants[i] = append(wants[i], index)
	}
	return patterns, wants
}

// journalPresent says that there is a systemd journal to read.
func journalPresent(dirs []string) bool {
	if len(dirs) == 0 {
		dirs = []string{"/var/log/journal", "/run/log/journal"}
	}
	for _, dir := range dirs {
		for _, glob := range []string{"*.journal", "*/*.journal"} {
			if found, err := filepath.Glob(filepath.Join(dir, glob)); err == nil && len(found) > 0 {
				return true
			}
		}
	}
	return false
}
