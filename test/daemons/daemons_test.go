// Package daemons holds trials of the shipped topics against the real programs
// whose logs they read: a hostile client says whatever it likes to a real
// dovecot, postfix or nginx, and nobody but that client may be blamed for it.
package daemons

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/topics"
)

// The hostile client's address and the one that it would like to see banned.
// All of 127.0.0.0/8 is this machine.
const (
	attacker = "127.66.0.66"
	framed   = "198.51.100.1"
	server   = "127.66.0.1"
)

// patience is how long a daemon may take to start, answer or write its log.
const patience = 30 * time.Second

// installed gives a program's path. Without it, or without root, the test is
// skipped, but never where everything must run.
func installed(t *testing.T, program string) string {
	t.Helper()
	skip := t.Skip
	if os.Getenv("CI") == "true" {
		skip = t.Fatal
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	path, err := exec.LookPath(program)
	if err != nil {
		skip(program + " is not installed")
	}
	return path
}

// start runs a daemon in the foreground until the test ends; then it is told to
// stop, and its process group is killed if it does not.
func start(t *testing.T, dir string, args ...string) *os.Process {
	t.Helper()
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			b, _ := os.ReadFile(out.Name())
			t.Logf("%s printed:\n%s", filepath.Base(args[0]), b)
		}
	})
	return cmd.Process
}

// freePort gives a TCP port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", server+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// eventually asks until it is so.
func eventually(t *testing.T, claim string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", claim)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// dial connects from an address, once the daemon listens.
func dial(t *testing.T, from, port string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	var conn net.Conn
	eventually(t, "something listens on port "+port, func() bool {
		c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(server, port))
		conn = c
		return err == nil
	})
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// logged waits until a log has a text so often, and gives it.
func logged(t *testing.T, path, text string, times int) string {
	t.Helper()
	var log string
	eventually(t, path+" has "+strconv.Itoa(times)+" lines with "+text, func() bool {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		log = string(b)
		return strings.Count(log, text) >= times
	})
	return log
}

// blamed gives who committed the offences that a topic finds in a log, and how
// often.
func blamed(t *testing.T, topic ban.Topic, log string) map[string]int {
	t.Helper()
	got := map[string]int{}
	trial := detect.Trial{
		Spec: string(topic), Topics: topics.Builtin(), Log: "-", In: strings.NewReader(log),
		Each: func(l detect.TrialLine) error {
			if l.Matched {
				got[l.ID]++
			}
			return nil
		},
	}
	if _, err := trial.Run(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return got
}

// onlyTheAttacker checks that a log blames the attacker at least so often, and
// nobody else.
func onlyTheAttacker(t *testing.T, topic ban.Topic, log string, atLeast int) {
	t.Helper()
	got := blamed(t, topic, log)
	if got[attacker] < atLeast {
		t.Errorf("%s found %d offences of the attacker, want at least %d", topic, got[attacker], atLeast)
	}
	delete(got, attacker)
	if len(got) > 0 {
		t.Errorf("%s blames %v", topic, got)
	}
	if t.Failed() {
		t.Logf("the log:\n%s", log)
	}
}

// ids gives a system user's numbers.
func ids(t *testing.T, name string) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// place makes a directory below /tmp that every user may pass through.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "daemon")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
