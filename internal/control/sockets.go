package control

import (
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Sockets makes the sockets of a service. A service manager keeps them over a
// restart (sd_pid_notify_with_fds(3)), so that whoever calls meanwhile waits, and
// the next process answers. When a person stops the service they end with it, and
// nothing starts it again.
type Sockets struct {
	kept  map[string]*os.File // of the process before, by name
	names []string            // that the manager keeps
}

// OpenSockets takes over the sockets that the service manager kept. It takes the variables
// that name it out of the environment ($LISTEN_FDS), and is called once in a
// process.
func OpenSockets() *Sockets {
	s := &Sockets{kept: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
		s.kept[f.Name()] = f
		s.names = append(s.names, f.Name())
	}
	return s
}

// Listen is [Listen] with a name for the service manager and a mode.
func (s *Sockets) Listen(name, path string, mode fs.FileMode) (net.Listener, error) {
	if f := s.kept[name]; f != nil {
		delete(s.kept, name)
		l, err := net.FileListener(f)
		f.Close() // the listener has a copy
		if err == nil && isAt(l, path) {
			return l, nil
		}
		if err == nil {
			l.Close()
		}
		forget(name)
	}
	l, err := listen(path, mode)
	if err != nil {
		return nil, err
	}
	if keep(name, l.UnixListener) {
		s.names = append(s.names, name)
		return l.UnixListener, nil // its file goes with the service's runtime directory
	}
	return l, nil
}

// isAt says whether a kept socket is still the one at path.
func isAt(l net.Listener, path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket && strings.TrimSuffix(l.Addr().String(), making) == path
}

// keep gives the service manager a copy of a listener; false where there is none.
func keep(name string, l *net.UnixListener) bool {
	manager := os.Getenv("NOTIFY_SOCKET")
	raw, err := l.SyscallConn()
	if manager == "" || err != nil {
		return false
	}
	// A socket of package net refuses rights once it is connected.
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(out)
	fault := raw.Control(func(fd uintptr) {
		err = unix.Sendmsg(out, []byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(int(fd)), &unix.SockaddrUnix{Name: manager}, unix.MSG_NOSIGNAL)
	})
	return err == nil && fault == nil
}

// forget ends the service manager's copy of a listener; where it cannot be told, callers
// wait for longer.
func forget(name string) { _, _ = daemon.SdNotify(false, "FDSTOREREMOVE=1\nFDNAME="+name) }

// Close leaves the service manager's copies where the service is to come back, and
// ends them where it failed: who calls a service that cannot start has to hear so.
func (s *Sockets) Close(failed bool) {
	for _, f := range s.kept {
		f.Close()
	}
	for _, name := range s.names {
		if failed {
			forget(name)
		}
	}
}
