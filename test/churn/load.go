package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

// fromLog is how many offenders a second are in the log.
const fromLog = 50

// addressOf gives the n-th address of the log or of the program: one a /64, by which IPv6
// counts.
func addressOf(program bool, n int) netip.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(n >> 16), byte(n >> 8), byte(n)}
	if program {
		b[4] = 1
	}
	return netip.AddrFrom16(b)
}

// load writes a second's offences, and hands over a second's bans.
func (w *world) load(ctx context.Context) error {
	var lines strings.Builder
	now := time.Now().Format(time.RFC3339)
	for range fromLog {
		fmt.Fprintf(&lines, "%s web sshd[7]: Failed password for root from %s port 4000 ssh2\n", now, addressOf(false, w.written))
		w.written++
	}
	f, err := os.OpenFile(w.log, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(lines.String()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	if time.Now().After(w.disk.until) {
		if err := w.disk.thaw(); err != nil {
			return err
		}
	}
	still := w.resume[:0]
	for _, r := range w.resume {
		if time.Now().Before(r.at) {
			still = append(still, r)
			continue
		}
		_ = r.p.signal(syscall.SIGCONT) // it may have been killed meanwhile
	}
	w.resume = still
	return w.hand(ctx)
}

// kept is how many generations of the log there are: more than rotations in the time
// that an agent is killed, paused and catches up. One that is deleted before it was
// read is lost to everybody.
const kept = 60

// rotate renames the log away, or copies and truncates it, as logrotate does: older
// generations are renamed, each gets a file of its own. Nobody writes meanwhile, as what
// is written between copy and truncation is lost to everybody.
func (w *world) rotate(copying bool) error {
	for n := kept; n > 0; n-- {
		from := fmt.Sprintf("%s.%d", w.log, n)
		if err := os.Rename(from, fmt.Sprintf("%s.%d", w.log, n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	first := w.log + ".1"
	if !copying {
		if err := os.Rename(w.log, first); err != nil {
			return err
		}
		return os.WriteFile(w.log, nil, 0o644)
	}
	in, err := os.Open(w.log)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(first, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), os.Truncate(w.log, 0))
}
