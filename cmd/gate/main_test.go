package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The test binary is the gate where a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv("BANMESH_TEST_GATE") != "" {
		main()
	}
	os.Exit(m.Run())
}

// A journal that restarts closes the gate's output; the gate goes on.
func TestTheGateOutlivesTheReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c := exec.CommandContext(t.Context(), os.Args[0], "-listen", address, filepath.Join(t.TempDir(), "wallets"))
	c.Env = append(os.Environ(), "BANMESH_TEST_GATE=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.Close()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			break
		}
	}
	// The line that it writes when it is open comes about now; another one when it stops.
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("stopped: %v", err)
	}
}
