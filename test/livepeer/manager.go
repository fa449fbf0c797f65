package livepeer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/gate"
)

// A Manager is to banmesh-gate as systemd with its units: it holds the
// socket, starts the gate, keeps the calls that it hands over, and replaces it
// when it ends or gives no sign of life.
type Manager struct {
	// Program is the gate's binary, File its list, Watchdog how long it may be
	// silent; 0 is for ever.
	Program, File string
	Watchdog      time.Duration
	// Log takes the gate's words.
	Log io.Writer

	socket *os.File
	notify *net.UnixConn
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	pid    int
	starts int
	alive  time.Time
	kept   []int // descriptors of calls

	settled chan struct{}
}

// StartManager opens the socket and starts the gate. The address is the gate's.
func StartManager(ctx context.Context, m *Manager) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	if m.socket, err = l.(*net.TCPListener).File(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "gate-manager")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "notify")
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"}); err != nil {
		return "", err
	}
	m.settled = make(chan struct{}, 1)
	ctx, m.stop = context.WithCancel(ctx)
	m.done.Go(func() { m.hear() })
	m.done.Go(func() {
		defer os.RemoveAll(dir)
		defer m.notify.Close()
		for ctx.Err() == nil {
			m.once(ctx, name)
		}
	})
	return l.Addr().String(), nil
}

// Stop ends the gate in an orderly way.
func (m *Manager) Stop() {
	m.stop()
	m.done.Wait()
	m.socket.Close()
	for _, fd := range m.kept {
		unix.Close(fd)
	}
}

// Signal sends one to the gate that runs now.
func (m *Manager) Signal(s unix.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pid == 0 {
		return nil // it is being replaced
	}
	return unix.Kill(m.pid, s)
}

// Starts counts how often the gate was started.
func (m *Manager) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts
}

// once runs one process to its end.
func (m *Manager) once(ctx context.Context, notify string) {
	files, names := []*os.File{m.socket}, []string{gate.SocketName}
	m.mu.Lock()
	for _, fd := range m.kept {
		if ended(fd) {
			unix.Close(fd)
			continue
		}
		files = append(files, os.NewFile(uintptr(fd), "call"))
		names = append(names, "call")
	}
	m.kept = nil
	m.mu.Unlock()
	// systemd sets the number of the process that it starts; here a shell does.
	c := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec nice -n -10 "$@"`, "sh", m.Program, m.File)
	c.ExtraFiles = files
	c.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"), "NOTIFY_SOCKET="+notify)
	if m.Watchdog > 0 {
		c.Env = append(c.Env, fmt.Sprintf("WATCHDOG_USEC=%d", m.Watchdog.Microseconds()))
	}
	c.Stdout, c.Stderr = m.Log, m.Log
	if err := c.Start(); err != nil {
		fmt.Fprintln(m.Log, "starting the gate:", err)
		<-ctx.Done()
		return
	}
	m.mu.Lock()
	m.pid, m.alive = c.Process.Pid, time.Now()
	m.starts++
	for _, f := range files[1:] {
		// The manager's copies stay until the calls end, as systemd's do.
		if fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			m.kept = append(m.kept, fd)
		}
		f.Close()
	}
	m.mu.Unlock()
	over := make(chan struct{})
	var guard sync.WaitGroup
	guard.Go(func() { m.guard(ctx, c.Process, over) })
	_ = c.Wait()
	m.mu.Lock()
	m.pid = 0
	m.mu.Unlock()
	m.settle(notify)
	close(over)
	guard.Wait()
}

// settle waits until everything was heard that the ended process had to say.
func (m *Manager) settle(notify string) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("BARRIER=1")); err == nil {
		<-m.settled
	}
}

// guard kills a process that gives no sign of life, and stops it at the end.
func (m *Manager) guard(ctx context.Context, p *os.Process, over <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			_ = p.Signal(unix.SIGTERM)
			_ = p.Signal(unix.SIGCONT)
			return
		case now := <-tick.C:
			m.mu.Lock()
			silent := m.Watchdog > 0 && now.Sub(m.alive) > m.Watchdog
			m.mu.Unlock()
			if silent {
				_ = p.Kill()
			}
		}
	}
}

// hear takes the gate's notifications.
func (m *Manager) hear() {
	b, rights := make([]byte, 1024), make([]byte, 1024)
	for {
		n, nr, _, _, err := m.notify.ReadMsgUnix(b, rights)
		if err != nil {
			return
		}
		m.mu.Lock()
		lines := bufio.NewScanner(strings.NewReader(string(b[:n])))
		for lines.Scan() {
			switch lines.Text() {
			case "WATCHDOG=1", "READY=1":
				m.alive = time.Now()
			case "BARRIER=1":
				m.settled <- struct{}{}
			case "FDSTORE=1":
				m.kept = append(m.kept, descriptors(rights[:nr])...)
			}
		}
		if len(m.kept) > 256 {
			m.kept = m.prune()
		}
		m.mu.Unlock()
	}
}

// prune lets calls go that have ended, as systemd does when both ends are shut.
func (m *Manager) prune() (kept []int) {
	for _, fd := range m.kept {
		if ended(fd) {
			unix.Close(fd)
			continue
		}
		kept = append(kept, fd)
	}
	return kept
}

func ended(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func descriptors(b []byte) (list []int) {
	messages, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return nil
	}
	for _, x := range messages {
		if fds, err := unix.ParseUnixRights(&x); err == nil {
			list = append(list, fds...)
		}
	}
	return list
}

// Build builds a program of this repository into a directory.
func Build(ctx context.Context, dir, root, command string) (binary string, err error) {
	binary = filepath.Join(dir, command)
	c := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/"+command)
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building %s: %w", command, err), errors.New(string(out)))
	}
	return binary, nil
}
