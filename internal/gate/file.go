package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"banmesh/internal/wholefile"
)

// DefaultFile is where the agent writes the list and the gate reads it.
const DefaultFile = "/var/lib/banmesh-gate/wallets"

const (
	// lookAgain is how often the gate looks whether the file is another one.
	lookAgain = 250 * time.Millisecond
	// firstLook is how long a starting gate waits for its list before it
	// answers without: calls wait in the socket meanwhile.
	firstLook = 100 * time.Millisecond
)

// WriteFile puts a list in the place of the one before, whole or not at all,
// also when the power fails. Owner and group may read it.
func WriteFile(file string, b []byte) error {
	if err := wholefile.Write(file, b, 0o640); err != nil {
		return fmt.Errorf("writing the gate's list: %w", err)
	}
	return nil
}

// A Trace tells one state of a file from another without reading it.
type Trace struct {
	Inode    uint64
	Size     int64
	Modified time.Time
}

// Look gives a file's trace, zero when there is no such file.
func Look(file string) (Trace, error) {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Trace{}, nil
	case err != nil:
		return Trace{}, err
	}
	t := Trace{Size: info.Size(), Modified: info.ModTime()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		t.Inode = s.Ino
	}
	return t, nil
}

// ReadFile reads a list's file.
func ReadFile(file string) (*List, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a file", ErrDamaged)
	case info.Size() > int64(maxFile):
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, info.Size())
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return Decode(b)
}

// follow keeps the gate's list that of the file until ctx ends; first is closed
// once the file was looked at. A disk that hangs holds this up and no call.
func (g *Gate) follow(ctx context.Context, file string, first chan<- struct{}) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var seen Trace
	var failed string
	for begun := false; ; begun = true {
		trace, err := Look(file)
		if !begun || trace != seen || err != nil && err.Error() != failed {
			failed = ""
			if err != nil {
				failed = err.Error()
			}
			seen = trace
			g.load(file, trace, err)
		}
		if !begun {
			close(first)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// load takes the file over, or nothing in its place.
func (g *Gate) load(file string, trace Trace, err error) {
	s := &state{list: &List{}, confirmed: trace.Modified, fault: err}
	switch {
	case err != nil:
	case trace == Trace{}:
		s.fault = ErrNone
	default:
		var l *List
		if l, err = ReadFile(file); err == nil {
			s.list = l
		}
		s.fault = err
	}
	before := g.state.Swap(s)
	switch {
	case s.fault != nil && (before.fault == nil || before.fault.Error() != s.fault.Error()):
		g.log.Warn("no list of denied wallets: allowing everybody", "file", file, "error", s.fault)
	case s.fault == nil && before.list.sum != s.list.sum:
		g.log.Info("list of denied wallets read", "wallets", s.list.Len(), "written", s.list.Written, "dry_run", s.list.DryRun)
	}
}
