package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banmesh/internal/cli"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/internal/doctor"
	"banmesh/internal/hostscan"
	"banmesh/topics"
)

// propose prints the findings and gives the topics to watch.
func (s *setup) propose(ctx context.Context, out io.Writer, report *hostscan.Report, definitions []*topics.Definition, was initBefore) (chosen []hostscan.Found, err error) {
	if len(s.topics) > 0 {
		for _, name := range s.topics {
			i := slices.IndexFunc(definitions, func(d *topics.Definition) bool { return string(d.Name) == name && d.Detect != nil })
			if i < 0 {
				return nil, &cli.Error{Err: fmt.Errorf("no topic %q finds offenders", name), Code: cli.ExitUsage, Hint: "see `agent topics list`"}
			}
			f := hostscan.Asked(s.root, definitions[i])
			if k := slices.IndexFunc(report.Topics, func(f hostscan.Found) bool { return f.Definition == definitions[i] }); k >= 0 {
				f = report.Topics[k]
			}
			chosen = append(chosen, f)
		}
	} else {
		for _, f := range report.Topics {
			if f.HasLog() {
				chosen = append(chosen, f)
			}
		}
		// A topic that was chosen before stays, whether its service is seen today or not.
		for _, name := range was.topics {
			i := slices.IndexFunc(definitions, func(d *topics.Definition) bool { return string(d.Name) == name && d.Detect != nil })
			if i >= 0 && !slices.ContainsFunc(chosen, func(f hostscan.Found) bool { return f.Definition == definitions[i] }) {
				f := hostscan.Asked(s.root, definitions[i])
				f.Why = "chosen before"
				chosen = append(chosen, f)
			}
		}
	}
	var fixes []string
	t := cli.NewTable(out, "TOPIC", "WHY", "LOG", "LAST LINES")
	t.Cut("LOG", "WHY")
	t.Least("WHY", 24)
	for _, f := range report.Topics {
		if !f.HasLog() {
			t.Row(string(f.Definition.Name), f.Why, "none that the topic knows", "not watched")
		}
	}
	for _, f := range chosen {
		known := s.known(ctx, f, definitions)
		if was.exists && !slices.Contains(was.topics, string(f.Definition.Name)) {
			known = strings.TrimPrefix(known+", new", ", ")
		}
		if fix := s.withheld(f); fix != "" {
			known = "unreadable, see below"
			fixes = append(fixes, fix)
		}
		t.Row(string(f.Definition.Name), f.Why, logOf(f), known)
	}
	if err := t.Flush(); err != nil {
		return nil, err
	}
	slices.Sort(fixes)
	for _, fix := range slices.Compact(fixes) {
		fmt.Fprintf(out, "the service may read a log after\n  %s\n", strings.ReplaceAll(fix, " && ", "\n  "))
	}
	for _, o := range report.Others {
		say(out, "%s %s", o.Name, o.Text)
	}
	if report.Docker != "" && report.Docker != "json-file" && report.Docker != "local" && report.Docker != "journald" {
		say(out, "Docker logs by its driver %q: see \"Containers\" in docs/recipes.md", report.Docker)
	}
	return chosen, nil
}

// say prints a sentence in lines that the terminal shows whole.
func say(out io.Writer, format string, args ...any) {
	fmt.Fprintln(out, cli.Wrap(out, 0, "   ", fmt.Sprintf(format, args...)))
}

func logOf(f hostscan.Found) string {
	var list []string
	if f.Journal {
		list = append(list, "journal")
	} else {
		list = append(list, f.Files...)
	}
	for _, c := range f.Containers {
		list = append(list, "container "+c)
	}
	if len(list) > 2 {
		list = append(list[:2], fmt.Sprintf("and %d more", len(list)-2))
	}
	return strings.Join(list, ", ")
}

// The end of a file that is tried, in bytes; how far back a journal's and a container's
// lines are, and how many and for how long.
const (
	trialBytes  = 256 << 10
	trialSince  = 24 * time.Hour
	trialLines  = 20_000
	trialWithin = 3 * time.Second
)

// known tries the topic on the newest lines of its log.
func (s *setup) known(ctx context.Context, f hostscan.Found, definitions []*topics.Definition) string {
	lines, offences := 0, 0
	t := detect.Trial{Spec: string(f.Definition.Name), Topics: definitions, Fail2banDir: detect.DefaultFail2banDir, Each: func(l detect.TrialLine) error {
		if l.Skipped {
			return nil
		}
		if lines++; l.Matched {
			offences++
		}
		if lines == trialLines {
			return errLook
		}
		return nil
	}}
	switch spec := logsOf(f); {
	case len(spec.Journal) > 0 || len(spec.Docker) > 0:
		options := source.Options{DockerRoot: filepath.Join(s.root, hostscan.DockerRoot)}
		for i, h := range source.Look(spec, options) {
			if l := spec.Logs()[i]; l.Kind != source.KindContainer || !slices.Contains(f.Journaled, l.Name) {
				if why := h.Cannot(l); why != "" {
					return why
				}
			}
		}
		t.Logs, t.Since, t.DockerRoot, t.Logtype = &spec, time.Now().Add(-trialSince), options.DockerRoot, "journal"
	case len(f.Files) > 0:
		file, err := endOf(f.Files[len(f.Files)-1])
		if err != nil {
			return "not readable"
		}
		defer file.Close()
		t.Log, t.In = "-", io.LimitReader(file, trialBytes)
	default:
		return ""
	}
	within, cancel := context.WithTimeout(ctx, trialWithin)
	defer cancel()
	if _, err := t.Run(within); err != nil && !errors.Is(err, errLook) && within.Err() == nil {
		return "the topic's filter does not run"
	}
	return fmt.Sprintf("%d lines, %d offences", lines, offences)
}

// endOf opens a file at its last bytes.
func endOf(name string) (*os.File, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(max(0, end-trialBytes), io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// logsOf gives the journal's entries and the containers that are read of a service.
func logsOf(f hostscan.Found) (spec source.Spec) {
	if f.Journal {
		for _, match := range f.Definition.Detect.Journal {
			if match != topics.FilterJournal && !strings.Contains(match, topics.PortOwner) {
				spec.Journal = append(spec.Journal, match)
			}
		}
	}
	spec.Journal = append(spec.Journal, journaled(f)...)
	spec.Docker = f.Containers
	return spec
}

// journaled gives the journal's entries of containers that Docker logs there, and that the
// definition does not name.
func journaled(f hostscan.Found) (list []string) {
	for _, name := range f.Journaled {
		if match := "CONTAINER_NAME=" + name + " _UID=0"; !slices.Contains(shippedJournal(f), match) {
			list = append(list, match)
		}
	}
	return list
}

// shippedJournal gives the journal's entries of the definition without this machine's
// configuration, which holds those of an earlier run.
func shippedJournal(f hostscan.Found) []string {
	for _, d := range topics.Builtin() {
		if d.Name == f.Definition.Name {
			return d.Detect.Journal
		}
	}
	return f.Definition.Detect.Journal
}

// readLogs gives the service the right to read every file; a package brings the file.
const readLogs = "cd /etc/systemd/system && mkdir -p banmesh-agent.service.d && cp /usr/share/doc/banmesh/examples/logs.conf banmesh-agent.service.d/ && " +
	"systemctl daemon-reload && systemctl try-restart banmesh-agent"

// withheld gives the command after which the service may read a log, "" where it
// may, or where nobody but root can tell.
func (s *setup) withheld(f hostscan.Found) string {
	if os.Geteuid() != 0 {
		return ""
	}
	var kept []string
	for _, h := range source.Look(source.Spec{Docker: f.Containers}, source.Options{DockerRoot: filepath.Join(s.root, hostscan.DockerRoot)}) {
		kept = append(kept, h.Paths...)
	}
	if len(doctor.Withheld(kept)) > 0 { // Docker would take any other right away again
		return readLogs
	}
	if f.Journal {
		return ""
	}
	if held := doctor.Withheld(f.Files); len(held) > 0 {
		return held[0].Fix
	}
	return ""
}
