package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// TakeLock makes this process the only one that enforces with a table in this
// network namespace. The lock is an abstract unix socket, which belongs to the
// namespace and dies with the process. Since any user may bind such a name, one
// that a process holds which could not enforce is no lock: fd is -1 then, and
// the caller goes on without.
func TakeLock(table string) (fd int, err error) {
	name := &unix.SockaddrUnix{Name: "@banmesh-firewall-" + table}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("taking the lock: %w", err)
	}
	if err = unix.Bind(fd, name); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN) // tells whoever asks that it is us
	}
	if err == nil {
		return fd, nil
	}
	defer func() { _ = unix.Close(fd) }()
	if !errors.Is(err, unix.EADDRINUSE) {
		return -1, fmt.Errorf("taking the lock: %w", err)
	}
	if err := unix.Connect(fd, name); err != nil {
		return -1, nil // it does not listen, so it is none of ours
	}
	holder, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, fmt.Errorf("asking who holds the lock: %w", err)
	}
	if holder.Uid != 0 && int(holder.Uid) != os.Geteuid() && !HasCapability(int(holder.Pid), unix.CAP_NET_ADMIN) {
		return -1, nil
	}
	return -1, fmt.Errorf("table %s: %w (process %d)", table, ErrBusy, holder.Pid)
}

// Unlock gives a lock back; -1 is none.
func Unlock(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// HasCapability says whether a process has a capability in effect.
func HasCapability(pid int, capability uint) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if hex, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(hex)), 16, 64)
			return err == nil && set&(1<<capability) != 0
		}
	}
	return false
}
