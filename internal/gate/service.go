package gate

import (
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A manager that is busy is told a state again, this often and so many times.
	busyPause, busyTries = 10 * time.Millisecond, 50
	// keepRate bounds the calls a second that the service manager keeps, which
	// costs it some 50 µs each; an orchestrator has a few.
	keepRate = 4000
	// keepWait is the moment that a busy manager is given, keepAgain the while
	// after it.
	keepWait, keepAgain = 5 * time.Millisecond, 50 * time.Millisecond
)

// Service is the service manager behind $NOTIFY_SOCKET. A nil Service hears
// nothing.
type Service struct {
	watchdog time.Duration
	conn     *net.UnixConn
	raw      syscall.RawConn

	mu    sync.Mutex
	since time.Time // second of count
	count int
	// busyUntil is when the manager is asked again after it was busy.
	busyUntil time.Time
}

// OpenService reaches the service manager that started this process, as
// sd_notify(3) says; nil where there is none. It takes its variables out of the
// environment.
func OpenService() *Service {
	name, usec := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC")
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(v)
	}
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil
	}
	s := &Service{conn: conn}
	if s.raw, err = conn.SyscallConn(); err != nil {
		conn.Close()
		return nil
	}
	if n, err := strconv.ParseInt(usec, 10, 64); err == nil && n > 0 {
		s.watchdog = time.Duration(n) * time.Microsecond
	}
	return s
}

// Close lets the manager's socket go.
func (s *Service) Close() {
	if s != nil {
		s.conn.Close()
	}
}

// Watchdog is how long the manager waits for a sign of life; 0 is for ever.
func (s *Service) Watchdog() time.Duration {
	if s == nil {
		return 0
	}
	return s.watchdog
}

// Notify tells the manager a state, such as "READY=1".
func (s *Service) Notify(state string) {
	if s == nil {
		return
	}
	again := time.NewTicker(busyPause)
	defer again.Stop()
	for range busyTries {
		if s.send(state, nil) {
			return
		}
		<-again.C
	}
}

// Keep gives the manager a copy of an accepted call, which the next process gets
// if this one is killed before it has answered. A manager that is busy is given a
// moment, and then left alone for a while: calls come first.
func (s *Service) Keep(fd int) {
	if s == nil || !s.mayKeep(time.Now()) {
		return
	}
	const state = "FDSTORE=1\nFDNAME=" + callName
	rights := unix.UnixRights(fd)
	if s.send(state, rights) {
		return
	}
	_ = s.raw.Control(func(own uintptr) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(own), Events: unix.POLLOUT}}, int(keepWait/time.Millisecond))
	})
	if !s.send(state, rights) {
		s.mu.Lock()
		s.busyUntil = time.Now().Add(keepAgain)
		s.mu.Unlock()
	}
}

func (s *Service) mayKeep(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.since) >= time.Second {
		s.since, s.count = now, 0
	}
	s.count++
	return s.count <= keepRate && !now.Before(s.busyUntil)
}

// send writes one datagram and never waits; false says that the manager is busy.
func (s *Service) send(state string, rights []byte) bool {
	sent := false
	_ = s.raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(int(fd), []byte(state), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil
	})
	return sent
}
