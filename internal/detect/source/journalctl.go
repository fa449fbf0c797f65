package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/detect/source/journalfile"
)

const (
	// maxField is the largest field that is read from journalctl; larger ones
	// are skipped over (core dumps were stored in fields once).
	maxField = 1 << 20
	// restartFirst and restartMost bound the pause before journalctl is
	// started again; it ends when journals rotate under load.
	restartFirst = 100 * time.Millisecond
	restartMost  = 10 * time.Second
)

// wantedFields are the fields of a Line, beside those that matches name.
var wantedFields = []string{
	"MESSAGE", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT", "_SYSTEMD_USER_UNIT", "_HOSTNAME", "_PID", "SYSLOG_PID",
	"_SOURCE_REALTIME_TIMESTAMP", "CONTAINER_NAME", "_COMM",
}

// runJournalctl reads one journal by the command of that name, for as long as
// ctx lasts. It keeps the cursor itself: --cursor-file is not written while
// following (systemd issue 26746).
func (j *journal) runJournalctl(ctx context.Context, dir string) error {
	pause := restartFirst
	for first := true; ; first = false {
		began := time.Now()
		err := j.journalctl(ctx, dir, first)
		var handling *handlerError
		switch {
		case errors.As(err, &handling):
			return handling.err
		case ctx.Err() != nil:
			return nil
		case j.o.Once:
			return err
		}
		if time.Since(began) > restartMost {
			pause = restartFirst
		}
		if err == nil {
			err = errors.New("journalctl ended")
		}
		j.failed(err)
		j.o.Log.Warn("journalctl ended, starting it again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// A handlerError ends a source, unlike all others.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }

// journalctlArguments asks for the entries after the position.
func (j *journal) journalctlArguments(dir string, first bool) []string {
	fields := slices.Clone(wantedFields)
	for _, m := range j.matches {
		for _, all := range m {
			for _, t := range all {
				if !slices.Contains(fields, t.field) {
					fields = append(fields, t.field)
				}
			}
		}
	}
	args := []string{"--output=export", "--quiet", "--no-pager", "--output-fields=" + strings.Join(fields, ",")}
	if dir != "" {
		args = append(args, "--directory="+dir)
	}
	if n := j.spec.JournalNamespace; n != "" {
		args = append(args, "--namespace="+n)
	}
	if slices.Contains(j.spec.JournalFiles, "system") {
		args = append(args, "--system")
	}
	if !j.o.Once {
		args = append(args, "--follow")
	}
	j.mu.Lock()
	var newest cursor
	for _, p := range j.last {
		if p.realtime >= newest.realtime {
			newest = p
		}
	}
	j.mu.Unlock()
	switch {
	case newest.sequence != (journalfile.ID{}):
		args = append(args, "--no-tail", "--after-cursor="+newest.position().text())
	case !first || j.o.Start == StartBeginning:
		args = append(args, "--no-tail")
	case j.o.Start == StartSince:
		args = append(args, "--no-tail", fmt.Sprintf("--since=@%d.%06d", j.o.Since.Unix(), j.o.Since.Nanosecond()/1000))
	case !j.o.Once:
		args = append(args, "--lines=0")
	default:
		args = append(args, "--no-tail")
	}
	return append(args, arguments(j.matches)...)
}

// text is the position as journalctl writes cursors.
func (p JournalPosition) text() string {
	s := fmt.Sprintf("s=%s;i=%x", p.SequenceID, p.Sequence)
	if p.BootID != "" {
		s += fmt.Sprintf(";b=%s;m=%x", p.BootID, p.Monotonic)
	}
	return s + fmt.Sprintf(";t=%x", p.Realtime)
}

// parseCursor reads journalctl's form of one.
func parseCursor(s string) (JournalPosition, error) {
	var p JournalPosition
	var err error
	number := func(text string, to *uint64) {
		v, e := strconv.ParseUint(text, 16, 64)
		*to, err = v, errors.Join(err, e)
	}
	for _, piece := range strings.Split(s, ";") {
		key, value, _ := strings.Cut(piece, "=")
		switch key {
		case "s":
			p.SequenceID = value
		case "b":
			p.BootID = value
		case "i":
			number(value, &p.Sequence)
		case "m":
			number(value, &p.Monotonic)
		case "t":
			number(value, &p.Realtime)
		}
	}
	if err == nil && p.SequenceID == "" {
		err = errors.New("no sequence")
	}
	if err != nil {
		return p, fmt.Errorf("cursor %s: %w", quoted(s), err)
	}
	return p, nil
}

// journalctl runs the command once.
func (j *journal) journalctl(ctx context.Context, dir string, first bool) error {
	name := j.o.Journalctl
	if name == "" {
		name = "journalctl"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, j.journalctlArguments(dir, first)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=")
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("running journalctl: %w", err)
	}
	var complaint strings.Builder
	cmd.Stderr = &limitedWriter{w: &complaint, left: 4 << 10}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running journalctl: %w", err)
	}
	err = j.readExport(bufio.NewReaderSize(out, 256<<10))
	if err != nil {
		cancel() // it may wait for a reader for ever
	}
	if wait := cmd.Wait(); err == nil && wait != nil && j.o.Once {
		err = fmt.Errorf("journalctl: %w: %s", wait, strings.TrimSpace(complaint.String()))
	} else if err == nil && complaint.Len() > 0 {
		err = fmt.Errorf("journalctl: %s", strings.TrimSpace(complaint.String()))
	}
	return err
}

// A limitedWriter keeps the first bytes and drops the rest.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.left -= n
	if _, err := l.w.Write(b[:n]); err != nil {
		return 0, err
	}
	return len(b), nil
}

// An entry is one journal entry in the making.
type entry struct {
	position cursor
	message  []byte
	hasText  bool
	source   uint64 // _SOURCE_REALTIME_TIMESTAMP
	line     Line
	fields   map[string][]string // fields that matches name
}

// readExport reads journalctl's export format (systemd's JOURNAL_EXPORT_FORMATS)
// to its end.
func (j *journal) readExport(r *bufio.Reader) error {
	named := map[string]bool{}
	for _, m := range j.matches {
		for _, all := range m {
			for _, t := range all {
				named[t.field] = true
			}
		}
	}
	e := entry{fields: map[string][]string{}}
	for {
		name, value, err := readField(r)
		if errors.Is(err, io.EOF) {
			return nil // an entry that is not whole is read again
		}
		if err != nil {
			return fmt.Errorf("reading journalctl's output: %w", err)
		}
		if name == "" {
			if err := j.deliver(&e); err != nil {
				return &handlerError{err: err}
			}
			clear(e.fields)
			e = entry{fields: e.fields, message: e.message[:0]}
			continue
		}
		if named[name] {
			e.fields[name] = append(e.fields[name], string(value))
		}
		e.set(name, value)
	}
}

// set takes one field of an entry.
func (e *entry) set(name string, value []byte) {
	switch name {
	case "__CURSOR":
		if p, err := parseCursor(string(value)); err == nil {
			if c, ok := cursorOf(p); ok {
				e.position = c
			}
		}
	case "MESSAGE":
		if !e.hasText {
			e.message, e.hasText = append(e.message[:0], value...), true
		}
	case "SYSLOG_IDENTIFIER":
		e.line.Tag = string(value)
	case "CONTAINER_NAME", "_COMM":
		if e.line.Tag == "" {
			e.line.Tag = string(value)
		}
	case "_SYSTEMD_UNIT":
		if e.line.Unit == "" {
			e.line.Unit = string(value)
		}
	case "_SYSTEMD_USER_UNIT":
		e.line.Unit = string(value)
	case "_HOSTNAME":
		e.line.Host = string(value)
	case "_PID", "SYSLOG_PID":
		if pid, err := strconv.Atoi(string(value)); err == nil && (e.line.PID == 0 || name == "SYSLOG_PID") {
			e.line.PID = pid
		}
	case "_SOURCE_REALTIME_TIMESTAMP":
		e.source, _ = strconv.ParseUint(string(value), 10, 64)
	}
}

// deliver hands on an entry, unless it was handled before.
func (j *journal) deliver(e *entry) error {
	if e.position.sequence == (journalfile.ID{}) {
		return nil
	}
	j.gate.Lock()
	defer j.gate.Unlock()
	if j.handled(e.position) {
		return nil
	}
	e.line.Matched = j.matched(e.line.Matched[:0], func(t term) bool { return slices.Contains(e.fields[t.field], t.value) })
	if e.hasText && len(e.line.Matched) > 0 {
		at := e.position.realtime
		if e.source != 0 {
			at = e.source
		}
		e.line.Text, e.line.Time, e.line.Journal, e.line.Stream = j.cutText(e.message), microseconds(at), true, "journal"
		if err := j.gate.handle(e.line); err != nil {
			return err
		}
		j.read.Add(1)
		j.lastLine.Store(j.o.Now().UnixNano())
	}
	j.advance(e.position)
	return nil
}

// readField reads one field; the empty name is the end of an entry. The value
// is valid until the next read.
func readField(r *bufio.Reader) (string, []byte, error) {
	line, err := readLine(r)
	if err != nil {
		return "", nil, err
	}
	if len(line) == 0 {
		return "", nil, nil
	}
	if name, value, ok := bytes.Cut(line, []byte{'='}); ok {
		return string(name), value, nil
	}
	name := string(line)
	var size [8]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", nil, err
	}
	n := binary.LittleEndian.Uint64(size[:])
	keep := min(n, maxField)
	if n > 1<<40 {
		return "", nil, fmt.Errorf("field of %d bytes", n)
	}
	value := make([]byte, keep)
	if _, err := io.ReadFull(r, value); err != nil {
		return "", nil, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(n-keep)+1); err != nil { // and the newline
		return "", nil, err
	}
	return name, value, nil
}

// readLine reads to the next newline, keeping at most maxField bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == nil {
		return line[:len(line)-1], nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	long := slices.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = r.ReadSlice('\n')
		if len(long) < maxField {
			long = append(long, line...)
		}
	}
	return bytes.TrimSuffix(long, []byte{'\n'}), err
}
