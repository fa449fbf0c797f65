// Package fail2banlog reads and writes the form of fail2ban's own log, in which
// other programs tell and are told of bans.
package fail2banlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
)

// maxLog is the size at which a log that nobody rotates is renamed to PATH.1.
const maxLog = 64 << 20

// A Chronicle follows the bans in force: it counts those of each topic since
// the start, and writes them in the form of fail2ban's log where it has a path.
type Chronicle struct {
	Table *export.Table
	Path  string // "" writes nothing
	Log   *slog.Logger
	Now   func() time.Time
	// Restored says that a ban was in force before the start; it is asked in the
	// first minute, in which bans of before come back.
	Restored func(ban.Topic, ban.Target) bool

	mu     sync.Mutex
	totals map[ban.Topic]uint64
	file   *os.File
	failed bool
}

// Total gives the bans of a topic since the start, restored ones included.
func (c *Chronicle) Total(t ban.Topic) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.totals[t]
}

// Run follows until ctx ends.
func (c *Chronicle) Run(ctx context.Context) error {
	defer c.close()
	started := c.Now()
	serial, entries := c.Table.Snapshot()
	var lines bytes.Buffer
	for e := range entries {
		c.count(e.Topic)
		c.line(&lines, e, "Restore Ban")
		if lines.Len() > 1<<16 {
			c.write(ctx, &lines)
		}
	}
	for {
		c.write(ctx, &lines)
		steps, last, err := c.Table.Steps(serial)
		switch {
		case errors.Is(err, export.ErrBehind):
			serial = c.Table.Serial()
			c.Log.WarnContext(ctx, "bans came faster than they are counted: some are not in the log in fail2ban's form")
			continue
		case err != nil:
			return err
		case len(steps) == 0:
			select {
			case <-ctx.Done():
				return nil
			case <-c.Table.Changed(serial):
			}
			continue
		}
		serial = last
		for _, s := range steps {
			switch {
			case s.Lifted():
				c.line(&lines, s.Entry, "Unban")
			case s.Before.IsZero():
				c.count(s.Topic)
				does := "Ban"
				if c.Now().Sub(started) < time.Minute && c.Restored(s.Topic, s.Target) {
					does = "Restore Ban"
				}
				c.line(&lines, s.Entry, does)
			}
		}
	}
}

func (c *Chronicle) count(t ban.Topic) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.totals == nil {
		c.totals = map[ban.Topic]uint64{}
	}
	c.totals[t]++
}

// line writes as fail2ban would; of wallets it knows nothing.
func (c *Chronicle) line(b *bytes.Buffer, e export.Entry, does string) {
	if c.Path == "" || e.Target.Kind() == ban.KindWallet {
		return
	}
	now := c.Now().Local()
	fmt.Fprintf(b, "%s,%03d fail2ban.actions        [%d]: NOTICE  [%s] %s %s\n", now.Format(time.DateTime), now.Nanosecond()/1e6, os.Getpid(), e.Topic, does, e.Target)
}

// write appends the lines. A line that cannot be written is left out, and said once.
func (c *Chronicle) write(ctx context.Context, lines *bytes.Buffer) {
	if lines.Len() == 0 {
		return
	}
	err := c.reopen()
	if err == nil {
		_, err = c.file.Write(lines.Bytes())
	}
	lines.Reset()
	if err != nil && !c.failed {
		c.Log.WarnContext(ctx, "the log in fail2ban's form cannot be written", slog.Any("error", err))
	}
	c.failed = err != nil
}

// reopen opens the file where it is not the one at the path, after a rotation.
func (c *Chronicle) reopen() error {
	if c.file != nil {
		mine, err := c.file.Stat()
		there, err2 := os.Stat(c.Path)
		if err == nil && err2 == nil && os.SameFile(mine, there) && mine.Size() < maxLog {
			return nil
		}
		if err == nil && mine.Size() >= maxLog {
			if err := os.Rename(c.Path, c.Path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		c.close()
	}
	f, err := os.OpenFile(c.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	c.file = f
	return nil
}

func (c *Chronicle) close() {
	if c.file != nil {
		err := c.file.Close()
		c.file = nil
		c.failed = cmp.Or(c.failed, err != nil)
	}
}
