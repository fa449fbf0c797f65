package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program where a test starts it as one.
func TestMain(m *testing.M) {
	if name := os.Getenv("BANMESH_TEST_PROGRAM"); name != "" {
		os.Args[0] = name
		main()
	}
	os.Exit(m.Run())
}

// A service outlives whoever reads its output: a journal that restarts closes the pipe,
// and the next line must not end the program.
func TestAServiceOutlivesTheReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"agent":  {"run", "--config-dir", "config", "--state-dir", "state", "--socket", "s", "--verbose"},
		"broker": {"run", "--listen", "127.0.0.1:0", "--socket", "s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "config/agent.toml"), []byte("[firewall]\nmode = \"off\"\n[topics.sshd]\ndetect = false\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			c := exec.CommandContext(t.Context(), os.Args[0], args...)
			c.Dir, c.Env = dir, append(os.Environ(), "BANMESH_TEST_PROGRAM="+name)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			c.Stdout, c.Stderr = w, w
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			r.Close()
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			for answers := false; !answers; {
				select {
				case err := <-ended:
					t.Fatalf("it ended: %v", err)
				case <-time.After(10 * time.Millisecond):
				}
				var out bytes.Buffer
				answers = run(t.Context(), name, []string{"status", "--socket", filepath.Join(dir, "s")}, nil, &out, io.Discard) == 0
			}
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("stopped: %v", err)
			}
		})
	}
}
