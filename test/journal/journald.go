package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	journaldPath = "/lib/systemd/systemd-journald"
	socketPath   = "/run/systemd/journal/socket"
	persistent   = "/var/log/journal"
)

// A journald is a running systemd-journald with /run and /var/log/journal of
// its own.
type journald struct{ cmd *exec.Cmd }

// startJournald mounts empty directories over the places that journald uses,
// in this process's namespace, and starts it with its journal in /run.
func startJournald(ctx context.Context) (*journald, error) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	if err := os.MkdirAll(persistent, 0o755); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/run", "/var/log"} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return nil, fmt.Errorf("mounting on %s: %w", dir, err)
		}
	}
	conf := "/run/systemd/journald.conf.d"
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return nil, err
	}
	text := "[Journal]\nStorage=auto\nSplitMode=uid\nRateLimitIntervalSec=0\nRateLimitBurst=0\nReadKMsg=no\nAudit=no\nSyncIntervalSec=1s\nSystemMaxUse=2G\nRuntimeMaxUse=1G\n"
	if err := os.WriteFile(filepath.Join(conf, "test.conf"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	j := &journald{cmd: exec.CommandContext(ctx, journaldPath)}
	j.cmd.Cancel = func() error { return j.cmd.Process.Signal(syscall.SIGTERM) }
	j.cmd.Stderr = os.Stderr
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err := dial(); err == nil {
			return j, c.Close()
		}
		if time.Now().After(deadline) {
			j.stop()
			return nil, fmt.Errorf("journald does not come up")
		}
		wait(ctx, 20*time.Millisecond)
	}
}

func (j *journald) stop() {
	_ = j.cmd.Process.Signal(syscall.SIGTERM)
	_ = j.cmd.Wait() // it was told to
}

// rotate makes journald begin new files.
func (j *journald) rotate() error { return j.cmd.Process.Signal(syscall.SIGUSR2) }

// flush moves the journal from /run to disk.
func (j *journald) flush() error {
	if err := os.MkdirAll(persistent, 0o755); err != nil {
		return err
	}
	return j.cmd.Process.Signal(syscall.SIGUSR1)
}

func dial() (*net.UnixConn, error) {
	return net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socketPath, Net: "unixgram"})
}

// log sends one message by journald's own protocol.
func log(c *net.UnixConn, tag, message string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "MESSAGE=%s\nSYSLOG_IDENTIFIER=%s\nPRIORITY=6\n", message, tag)
	_, err := c.Write([]byte(b.String()))
	return err
}

// wait waits, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
