package commands

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// A screen is a program on a terminal of its own, as a person has it over ssh.
type ptyScreen struct {
	t    *testing.T
	main *os.File // the terminal emulator's end
	tty  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	// columns is the terminal's width now.
	columns uint16
}

// onTerminal runs a command on a terminal of 80 columns and 24 lines.
func onTerminal(t *testing.T, c *exec.Cmd) *ptyScreen {
	t.Helper()
	main, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here:", err)
	}
	t.Cleanup(func() { main.Close() })
	testnet.Must(t, unix.IoctlSetPointerInt(int(main.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(main.Fd()), unix.TIOCGPTN)
	testnet.Must(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	testnet.Must(t, err)
	t.Cleanup(func() { tty.Close() })
	s := &ptyScreen{t: t, main: main, tty: tty, cmd: c}
	s.size(80, 24)
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	c.Env = append(slices.DeleteFunc(c.Environ(), func(v string) bool { return strings.HasPrefix(v, "TERM=") || strings.HasPrefix(v, "NO_COLOR=") }), "TERM=xterm-256color", "NO_COLOR=1",
		// At its end the screen's library waits half a second for its reader, and closes the
		// terminal under it on a busy machine: a race of theirs, by a program that is over.
		"GORACE=exitcode=0")
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := main.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.text.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *ptyScreen) size(columns, lines uint16) {
	testnet.Must(s.t, unix.IoctlSetWinsize(int(s.main.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines}))
}

func (s *ptyScreen) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits until the program draws a text. It draws but the differences, so
// it is made to draw all by another size of the terminal.
func (s *ptyScreen) shows(text string) {
	s.t.Helper()
	for deadline, i := time.Now().Add(patience), 0; ; time.Sleep(5 * time.Millisecond) {
		if i++; i%40 == 20 {
			s.columns = 80 + (s.columns+1)%2
			s.size(s.columns, 24)
		}
		s.mu.Lock()
		raw := s.text.String()
		if strings.Contains(strings.Join(strings.Fields(ansi.Strip(raw)), ""), strings.Join(strings.Fields(text), "")) {
			s.text.Reset()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if time.Now().After(deadline) {
			s.t.Fatalf("never shown: %q; drawn was %q", text, raw)
		}
	}
}

func (s *ptyScreen) press(keys string) {
	_, err := s.main.WriteString(keys)
	testnet.Must(s.t, err)
}

func (s *ptyScreen) mode() *unix.Termios {
	m, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	testnet.Must(s.t, err)
	return m
}

// ends waits for the program's end, and checks that the terminal is as it was.
func (s *ptyScreen) ends(before *unix.Termios) {
	s.t.Helper()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the program ended with %v: %q", err, s.written())
	}
	if after := s.mode(); *after != *before {
		s.t.Errorf("the terminal's mode is %+v, it was %+v", after, before)
	}
	// The other screen is left, and the cursor is shown again.
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		w := s.written()
		if strings.Contains(w, "\x1b[?1049l") && strings.Contains(w, "\x1b[?25h") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the screen is not given back: %q", w)
		}
	}
}

func TestTopShowsAndUnbansOnARealTerminal(t *testing.T) {
	t.Parallel()
	n := newWalkNode(t, "[firewall]\nmode = \"off\"\n[embedded_broker]\nenabled = false\n[topics.sshd]\nfiles = []\njournal = []\n")
	for _, x := range []string{"203.0.113.7", "203.0.113.8"} {
		if _, refusal, err := n.do("", "ban", x, "--topic", "sshd", "--for", "1h"); err != nil {
			t.Fatal(err, refusal)
		}
	}
	s := onTerminal(t, n.command("top"))
	before := s.mode()
	testnet.Must(t, s.cmd.Start())
	s.shows("203.0.113.7")
	s.press("j") // the second one
	s.shows("2 of 2")
	s.press("\r")
	s.shows("203.0.113.8 is banned")
	s.press("u")
	s.shows("unban 203.0.113.8 here")
	s.press("y")
	s.shows("unbanned 203.0.113.8 in sshd")
	if n.is("203.0.113.8") == "ban" || n.is("203.0.113.7") != "ban" {
		t.Errorf("203.0.113.8 is %s, 203.0.113.7 is %s", n.is("203.0.113.8"), n.is("203.0.113.7"))
	}
	s.press("6")
	s.shows("a person")
	s.size(100, 30)
	s.press("4")
	s.shows("POLICY")
	if strings.Contains(s.written(), "\x1b[31m") {
		t.Error("NO_COLOR is set, and there is a colour")
	}
	s.press("q")
	s.ends(before)

	// A signal ends it as well.
	s = onTerminal(t, n.command("top"))
	before = s.mode()
	testnet.Must(t, s.cmd.Start())
	s.shows("203.0.113.7")
	testnet.Must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.ends(before)
}

func TestTopSaysWhyThereIsNoScreen(t *testing.T) {
	t.Parallel()
	n := &walkNode{t: t, dir: t.TempDir()}
	for term, want := range map[string]string{"dumb": "TERM=dumb", "": "cannot move its cursor", "xterm": "there is no terminal"} {
		c := n.command("top")
		c.Env = append(c.Env, "TERM="+term)
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "agent status") {
			t.Errorf("TERM=%s: %v: %s", term, err, out)
		}
	}
	if out, err := n.command("top", "--every", "1ms").CombinedOutput(); err == nil || !strings.Contains(string(out), "from 0.5s to 1h") {
		t.Errorf("%v: %s", err, out)
	}
}

// The lists are those of the commands, sorted and searched.
func TestTheListsOfTopAreSortedAndSearched(t *testing.T) {
	t.Parallel()
	now := time.Now()
	bans := []control.Ban{
		{Target: ban.MustTarget("203.0.113.9"), Topic: "sshd", Until: now.Add(2 * time.Hour), Origin: []string{"bob"}, Hits: 1},
		{Target: ban.MustTarget("203.0.113.10"), Topic: "nginx", Until: now.Add(time.Hour), Origin: []string{"alice"}, Hits: 7},
		{Target: ban.MustTarget("198.51.100.1"), Topic: "dovecot", Until: now.Add(3 * time.Hour), Origin: []string{"here"}, Hits: 5},
	}
	for sort, want := range map[string]string{"end": "203.0.113.10", "target": "198.51.100.1", "topic": "198.51.100.1", "origin": "203.0.113.10", "hits": "203.0.113.10"} {
		if got := banRows(slices.Clone(bans), sort, "", now).Target(0); got != want {
			t.Errorf("by %s the first is %s", sort, got)
		}
	}
	for search, want := range map[string]int{"": 3, "203.0.113": 2, "alice": 1, "dovecot": 1, "nobody": 0} {
		if got := banRows(slices.Clone(bans), "end", search, now).Count; got != want {
			t.Errorf("%d bans with %q", got, search)
		}
	}
	heading, rows := banRows(slices.Clone(bans), "end", "", now).Print(1, 3, 40)
	if !strings.HasPrefix(heading, "TARGET") || len(rows) != 2 || !strings.HasPrefix(rows[0], "203.0.113.9") {
		t.Errorf("%q %q", heading, rows)
	}
	peers := []control.Peer{{Name: "alice", Met: 1, Claims: 9}, {Name: "bob", Met: 5}}
	for sort, want := range map[string]string{"met here": "bob", "claims": "alice", "name": "alice", "strikes": "alice", "banning": "alice"} {
		if _, rows := peerRows(slices.Clone(peers), sort, "", now).Print(0, 2, 80); !strings.HasPrefix(rows[0], want) {
			t.Errorf("by %s the rows are %q", sort, rows)
		}
	}
	if got := peerRows(slices.Clone(peers), "name", "", now).Detail(1, 80); !strings.Contains(got, "bob") {
		t.Errorf("the detail is %q", got)
	}
	events := eventRows([]control.Event{{Kind: "hold", By: "a\x1b[2Jlice", Why: "x"}, {Kind: "ban", Target: ban.MustTarget("203.0.113.9")}}, "")
	if _, rows := events.Print(0, 2, 80); strings.Contains(rows[0], "\x1b") || events.Target(0) != "" || events.Target(1) != "203.0.113.9" {
		t.Errorf("the events are %q", rows)
	}
	if got := warningRows([]control.Warning{{Code: "a", Text: "b"}, {Code: "c", Text: "d"}}, "d").Count; got != 1 {
		t.Errorf("%d warnings", got)
	}
}
