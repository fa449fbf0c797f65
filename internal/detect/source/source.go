// Package source reads log lines, each exactly once, from where services put
// them: files that rotate, the systemd journal, Docker's logs, syslog
// datagrams and streams, and standard input.
//
// A [Source] hands lines in order to one function and knows its [Position], a
// small value that survives a restart. It never stops because of what it
// reads: a line that is too long is cut, a file that is damaged is counted and
// left, a directory that is missing is waited for.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// MaxLine is the longest line that is handed on, in bytes; a longer one is cut
// there and counted. No filter looks that far, and a hostile client must not
// choose how much memory a line costs.
const MaxLine = 64 << 10

// A Line is one log line. It is valid only during the call that it is handed
// to.
type Line struct {
	// Text is the line without its end. For the journal it is the MESSAGE
	// field alone and may hold newlines; Host, Tag and PID carry the rest.
	Text []byte
	// Time is when the line was written, if its source says so: the journal's
	// (source) timestamp, Docker's, or syslog's. Zero means that the time, if
	// any, stands in Text.
	Time time.Time
	// Tag is the syslog identifier or the container's name, Unit the systemd
	// unit, Host the host that the source names.
	Tag, Unit, Host string
	// PID is the process that logged it, or 0.
	PID int
	// Journal says that the line comes from the systemd journal.
	Journal bool
	// Spoofable says that anyone who can send a packet can forge the line.
	Spoofable bool
	// Stream names the line's source: a path, "journal",
	// "docker:NAME", "udp:ADDRESS", "tcp:ADDRESS" or "stdin".
	Stream string
	// Matched lists, ascending, which entries of the part of the [Spec] that
	// the line came through want it: indexes into Files, Journal, Docker or
	// Syslog. It is empty for standard input.
	Matched []int

	cut bool // Text is not the whole line
}

// A Source reads lines. Its methods may be called from several goroutines.
type Source interface {
	// Run hands every line to handle, in order and one at a time, until ctx
	// ends or handle fails, whose error it returns. It returns nil when ctx
	// ended, or when Options.Once is set and everything has been read. Run is
	// called once.
	Run(ctx context.Context, handle func(Line) error) error
	// Position is where to go on: after the last line for which handle
	// returned nil. Called from within handle it excludes the line at hand.
	// From another goroutine use Checkpoint to take it together with counters.
	Position() Position
	// Checkpoint calls f with the position while no line is being handled, so
	// that what handle has counted and the position agree. It must not be
	// called from within handle.
	Checkpoint(f func(Position))
	// Status describes the source for people and metrics.
	Status() Status
}

// A Spec names the logs to read. Several parts may be set; their lines then come
// one at a time through one [Source].
type Spec struct {
	// Files are glob patterns of text files, in the syntax of
	// [path/filepath.Match]. Files that appear later are read from their
	// beginning. Names that end like a compressed file are left out.
	Files []string `json:"files,omitempty"`
	// Journal are matches as journalctl and fail2ban's journalmatch write
	// them: "A=1 B=2" needs both, "A=1 A=2" either, "A=1 + B=2" either. Several
	// entries are alternatives; the entry "" is every message.
	Journal []string `json:"journal,omitempty"`
	// JournalDirs are the directories of journal files, each read with its
	// machine subdirectories; empty means those of this system.
	JournalDirs []string `json:"journal_dirs,omitempty"`
	// JournalNamespace is the journal of services with LogNamespace= in place of the
	// usual one (systemd.exec(5)); "*" is all of them with the usual one.
	JournalNamespace string `json:"journal_namespace,omitempty"`
	// JournalFiles bounds the files: "system" leaves out those of users, "runtime" those
	// that are kept over a boot.
	JournalFiles []string `json:"journal_files,omitempty"`
	// Docker are glob patterns of json-file and local logs, or names of containers
	// (without a slash, globs allowed) of the local Docker engine.
	Docker []string `json:"docker,omitempty"`
	// Syslog are addresses to receive on: "udp://127.0.0.1:5140" or
	// "tcp://127.0.0.1:5140".
	Syslog []string `json:"syslog,omitempty"`
	// Stdin reads standard input to its end.
	Stdin bool `json:"stdin,omitempty"`
}

// Key is a text that is the same for equal specs, so that jails with one spec
// share one source.
func (s Spec) Key() string {
	return fmt.Sprintf("files%q journal%q in%q %s docker%q syslog%q stdin:%t", s.Files, s.Journal, s.JournalDirs, s.JournalKey(), s.Docker, s.Syslog, s.Stdin)
}

// OwnJournal says that another journal is read than that of every other spec.
func (s Spec) OwnJournal() bool { return s.JournalKey() != "" }

// JournalKey is a text that is the same for specs that read the same journal, ""
// where that is the usual one.
func (s Spec) JournalKey() string {
	if len(s.Journal) == 0 || s.JournalNamespace == "" && len(s.JournalFiles) == 0 && len(s.JournalDirs) == 0 {
		return ""
	}
	return fmt.Sprintf("%q in %q: %q", s.JournalNamespace, s.JournalDirs, s.JournalFiles)
}

// A Start says where reading begins where no [Position] says it.
type Start int

// The starts.
const (
	// StartEnd skips the lines that exist when Run begins.
	StartEnd Start = iota
	// StartBeginning reads everything: for tests, replays and one-off files.
	StartBeginning
	// StartSince reads lines written at Options.Since or later. Of files
	// whose lines' times cannot be told, it reads everything if the file was
	// written to since then.
	StartSince
)

// Options are a source's surroundings. The zero value works.
type Options struct {
	// Log receives messages for the operator; nil discards it.
	Log *slog.Logger
	// Now is the clock; nil is [time.Now].
	Now func() time.Time
	// Start and Since say where to begin without a position.
	Start Start
	Since time.Time
	// LineTime tells the time of a line of a file, for StartSince; may be nil.
	LineTime func(text []byte) (time.Time, bool)
	// Once makes Run return when everything there is has been read.
	Once bool
	// Poll looks at files and directories instead of being told by the kernel.
	Poll bool
	// Stdin replaces standard input. An [*Input] is left open and may be read
	// by another source afterwards.
	Stdin io.Reader
	// Journalctl is the command of the fall-back reader; "" is "journalctl".
	Journalctl string
	// ForceJournalctl reads journals by the command alone.
	ForceJournalctl bool
	// DockerRoot is the directory of Docker's containers; "" is the usual one.
	DockerRoot string
}

// ErrSpec says that a spec cannot be read as written.
var ErrSpec = errors.New("unusable source")

// Open prepares the source of a spec, to continue at resume if that is not
// zero. It starts nothing and touches no file; a file, directory or journal
// that does not exist yet is waited for by Run.
func Open(spec Spec, resume Position, o Options) (Source, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &gate{}
	var parts []part
	if len(spec.Files) > 0 {
		f, err := newFiles(spec.Files, plainFormat{}, resume.Files, resume.Time, g, o)
		if err != nil {
			return nil, err
		}
		parts = append(parts, f)
	}
	if len(spec.Journal) > 0 {
		j, err := newJournal(spec, resume.Journal, g, o)
		if err != nil {
			return nil, err
		}
		parts = append(parts, j)
	}
	if len(spec.Docker) > 0 {
		d, err := newDocker(spec.Docker, resume.Docker, resume.Time, g, o)
		if err != nil {
			return nil, err
		}
		parts = append(parts, d)
	}
	for i, address := range spec.Syslog {
		l, err := newSyslog(address, i, g, o)
		if err != nil {
			return nil, err
		}
		parts = append(parts, l)
	}
	if spec.Stdin {
		parts = append(parts, newStdin(g, o))
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("%w: it names nothing to read", ErrSpec)
	}
	return &source{gate: g, parts: parts, now: o.Now}, nil
}

// quoted is how a bad piece of a spec is shown.
func quoted(s string) string { return fmt.Sprintf("%q", strings.ToValidUTF8(s, "\uFFFD")) }
