package gate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// SocketName is the FileDescriptorName of the socket unit.
const SocketName = "gate"

const (
	// pathBytes makes the path 32 hex digits: nobody guesses it.
	pathBytes = 16
	// requestTimeout bounds a request and, with it, how long a stop may wait
	// for one that has begun. The orchestrator is on the same machine.
	requestTimeout = 5 * time.Second
	// stopTimeout is how long Run waits for requests under way: the slowest
	// request and the chained webhook behind it.
	stopTimeout = requestTimeout + 5*time.Second
)

var errPath = errors.New("it is 32 digits of 0-9 and a-f")

// LoadPath reads the secret path of the gate's URL from a file of mode 0600,
// and makes the file with a random path if there is none. Whoever knows the
// path can learn which wallets are denied, nothing else.
func LoadPath(file string) (string, error) {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createPath(file)
	case err != nil:
		return "", fmt.Errorf("reading the gate's path: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("reading the gate's path: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is readable by others (mode %v): chmod 600 it, or remove it for a new path", file, info.Mode().Perm())
	}
	path := strings.TrimSuffix(string(b), "\n")
	if !validPath(path) {
		return "", fmt.Errorf("%s holds no path of the gate: %w; remove it for a new one", file, errPath)
	}
	return path, nil
}

// createPath writes the file under another name first, so that a crash leaves
// the whole file or none.
func createPath(file string) (path string, err error) {
	var raw [pathBytes]byte
	rand.Read(raw[:])
	path = hex.EncodeToString(raw[:])
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, writeErr := f.WriteString(path + "\n")
	if err := errors.Join(writeErr, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	return path, nil
}

func validPath(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == pathBytes && strings.ToLower(s) == s
}

// Listen gives the gate's socket among those that systemd handed over
// (activation.Files of go-systemd, asked once in a process), or else opens
// address itself. With systemd's, calls that come while the agent restarts
// wait in the kernel instead of being refused; inherited says so. An address
// that is not loopback is refused. Of files it closes only the gate's.
func Listen(address string, files []*os.File) (l net.Listener, inherited bool, err error) {
	for _, f := range files {
		if f.Name() != SocketName {
			continue
		}
		l, err := net.FileListener(f)
		f.Close() // the listener has a copy
		if err != nil {
			return nil, false, fmt.Errorf("taking over the gate's socket: %w", err)
		}
		if !isLoopback(l.Addr()) {
			l.Close()
			return nil, false, fmt.Errorf("the gate's socket listens on %s: %w", l.Addr(), errLoopback)
		}
		return l, true, nil
	}
	tcp, err := LoopbackAddress(address)
	if err != nil {
		return nil, false, fmt.Errorf("the gate's address %s: %w", address, err)
	}
	l, err = net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, false, fmt.Errorf("listening for the orchestrator: %w", err)
	}
	return l, false, nil
}

// LoopbackAddress reads an address on which a gate may listen.
func LoopbackAddress(address string) (*net.TCPAddr, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !isLoopback(tcp) {
		return nil, errLoopback
	}
	return tcp, nil
}

var errLoopback = errors.New("not a loopback address, and the webhook is for the orchestrator on this machine")

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// URL gives the value of the orchestrator's -authWebhookUrl.
func (g *Gate) URL(l net.Listener) string {
	return "http://" + l.Addr().String() + "/" + g.o.Path
}

// Run serves on l until ctx ends and answers every call that it accepted. It
// closes l.
//
// Every answer closes its connection. A connection that stays open for the
// next call would break the one that is sent in the moment in which the agent
// stops, and the orchestrator does not try again; one that is still in the
// queue of systemd's socket is simply served by the next agent. A new
// connection on loopback costs some 50 µs.
func (g *Gate) Run(ctx context.Context, l net.Listener) error {
	var open sync.WaitGroup // connections
	s := &http.Server{
		Handler:        g,
		ReadTimeout:    requestTimeout,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(g.o.Log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Done()
			}
		},
	}
	s.SetKeepAlivesEnabled(false)
	defer g.http.CloseIdleConnections()
	defer g.lookups.Wait()
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		s.Close()
		return fmt.Errorf("serving the orchestrator: %w", err)
	case <-ctx.Done():
	}
	// Not with Shutdown: it drops a connection whose request it has not read
	// yet. Once Serve is back, every accepted one is counted.
	l.Close()
	<-failed
	cut := time.AfterFunc(stopTimeout, func() { s.Close() })
	defer cut.Stop()
	open.Wait()
	s.Close()
	return nil
}
