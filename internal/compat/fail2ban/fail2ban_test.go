package fail2ban

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/compat/pickle"
)

// node is one jail in memory.
type node struct {
	bans     []Ban
	ignored  []string
	attempts int
}

func (n *node) Jails() []string { return []string{"sshd"} }

func (n *node) Jail(name string) (Jail, error) {
	if name != "sshd" {
		return Jail{}, fmt.Errorf("%s: %w", name, ErrJail)
	}
	return Jail{Name: name, Failed: 1, TotalFailed: 5, TotalBanned: 3, Banned: len(n.bans), Files: []string{"/var/log/auth.log"}, BanTime: time.Hour, FindTime: time.Minute, MaxRetry: 5}, nil
}

func (n *node) Bans(string) []Ban { return slices.Clone(n.bans) }

func (n *node) Banned(_, target string) bool { return slices.Contains(targets(n.bans), target) }

func (n *node) Ban(_ context.Context, _ string, list []string) (int, error) {
	for _, t := range list {
		if strings.ContainsAny(t, "ghijklmnop") {
			return 0, fmt.Errorf("%q: %w", t, ErrAddress)
		}
		n.bans = append(n.bans, Ban{Target: t})
	}
	return len(list), nil
}

func (n *node) Unban(_ context.Context, _ string, list []string) (lifted []string, err error) {
	n.bans = slices.DeleteFunc(n.bans, func(b Ban) bool {
		if list != nil && !slices.Contains(list, b.Target) {
			return false
		}
		lifted = append(lifted, b.Target)
		return true
	})
	return lifted, nil
}

func (n *node) Ignored(string) []string { return n.ignored }

func (n *node) Ignore(_, target string, on bool) error {
	n.ignored = slices.DeleteFunc(n.ignored, func(s string) bool { return s == target })
	if on {
		n.ignored = append(n.ignored, target)
	}
	return nil
}

func (n *node) Attempt(_ context.Context, _, _ string, times int) error {
	n.attempts += times
	return nil
}

func (n *node) LogTarget() string { return "" }

func newServer(n Node) *Server {
	return New(Options{Node: n, Log: slog.New(slog.DiscardHandler)})
}

func TestEachCommandIsAnsweredAsFail2banDoes(t *testing.T) {
	n := &node{bans: []Ban{
		{"192.0.2.9", time.Unix(1000, 0), time.Unix(8000, 0)},
		{"192.0.2.7", time.Unix(2000, 0), time.Unix(5600, 0)},
	}}
	s := newServer(n)
	for _, x := range []struct{ command, want string }{
		{"ping", "pong"},
		{"version", Version},
		{"status", "[[Number of jail 1] [Jail list sshd]]"},
		{"status sshd", "[[Filter [[Currently failed 1] [Total failed 5] [File list [/var/log/auth.log]]]] [Actions [[Currently banned 2] [Total banned 3] [Banned IP list [192.0.2.9 192.0.2.7]]]]]"},
		{"status sshd short", "[[Filter [[Currently failed 1] [Total failed 5] [File list [/var/log/auth.log]]]] [Actions [[Currently banned 2] [Total banned 3]]]]"},
		{"status sshd stats", "[banmesh [1 5] [2 3]]"},
		{"stats", "[{sshd [banmesh [1 5] [2 3]]}]"},
		{"banned", "[[{sshd [192.0.2.9 192.0.2.7]}]]"},
		{"banned 192.0.2.7 192.0.2.1", "[[sshd] []]"},
		{"get sshd banned 192.0.2.7", "1"},
		{"get sshd banip", "[192.0.2.7 192.0.2.9]"},
		{"get sshd bantime", "3600"},
		{"get sshd logpath", "[/var/log/auth.log]"},
		{"get dbfile", "<nil>"},
		{"set sshd banip 192.0.2.1 192.0.2.2", "2"},
		{"set sshd banip host.example.org", `ValueError: "host.example.org": not an IP address or prefix`},
		{"set sshd unbanip 192.0.2.1 192.0.2.100", "1"},
		{"set sshd unbanip --report-absent 192.0.2.100", "ValueError: not banned: ['192.0.2.100']"},
		{"set sshd addignoreip 192.0.2.55", "[192.0.2.55]"},
		{"set sshd delignoreip 192.0.2.55", "[]"},
		{"set sshd attempt 192.0.2.66 a b c", "1"},
		{"unban 192.0.2.2", "1"},
		{"unban --all", "2"},
		{"status nothing", "UnknownJailException: nothing"},
		{"set nothing banip 192.0.2.1", "UnknownJailException: nothing"},
		{"set sshd bantime 5", "Exception: Invalid command 'bantime' (settings of a topic are in agent.toml)"},
		{"get sshd", "IndexError: list index out of range"},
		{"set sshd banip", "IndexError: list index out of range"},
		{"stop", "Exception: stop is not done here: these jails are topics of the Banmesh agent, which agent.toml configures"},
		{"sleep 100", "Exception: Invalid command"},
		{"", "Exception: Invalid command"},
	} {
		var words []any
		for w := range strings.SplitSeq(x.command, " ") {
			words = append(words, w)
		}
		v, err := s.answer(t.Context(), words)
		got := fmt.Sprint(v)
		if e, ok := errors.AsType[*pickle.Error](err); ok {
			got = e.Class + ": " + e.Text
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", x.command, got, x.want)
		}
	}
	if n.attempts != 3 {
		t.Errorf("%d attempts", n.attempts)
	}
}

// dial starts a server and gives a connection to it.
func dial(t *testing.T, s *Server) (conn net.Conn, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { over <- s.Serve(ctx, l) }()
	conn, err = net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return conn, path
}

// A request may come in any pieces, several may come at once, and one that is
// refused does not end the connection.
func TestRequestsInPieces(t *testing.T) {
	s := newServer(&node{})
	conn, _ := dial(t, s)
	ping := "\x80\x02](X\x04\x00\x00\x00pinge." + string(endMark)
	go func() {
		for _, c := range []byte(ping) {
			conn.Write([]byte{c}) //nolint:errcheck // a fault shows in the answers
		}
		conn.Write([]byte(ping + "junk" + string(endMark) + ping + string(closeMark) + string(endMark))) //nolint:errcheck // as above
	}()
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	answers := bytes.Split(b, endMark)
	if len(answers) != 5 || !bytes.Contains(answers[0], []byte("pong")) || !bytes.Contains(answers[1], []byte("pong")) ||
		!bytes.Contains(answers[2], []byte("ValueError")) || !bytes.Contains(answers[3], []byte("pong")) {
		t.Errorf("%q", answers)
	}
	if c := s.Clients(); len(c) != 1 || c[0].Asked != 3 {
		t.Errorf("%+v", c)
	}
}

// A request without an end is cut off, and others are answered meanwhile.
func TestAnEndlessRequestIsCutOff(t *testing.T) {
	s := newServer(&node{})
	conn, path := dial(t, s)
	for range 80 { // 80 KB
		if _, err := conn.Write(bytes.Repeat([]byte("]"), 1024)); err != nil {
			break
		}
	}
	other, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Write([]byte("\x80\x02](X\x04\x00\x00\x00pinge." + string(endMark) + string(closeMark) + string(endMark))); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(other); err != nil || !bytes.Contains(b, []byte("pong")) {
		t.Errorf("%q %v", b, err)
	}
	if b, _ := io.ReadAll(conn); !bytes.Contains(b, []byte("65536 bytes")) && len(b) > 0 {
		t.Errorf("%q", b)
	}
}

// More connections than there is room for are closed at once.
func TestConnectionsAreBounded(t *testing.T) {
	s := newServer(&node{})
	_, path := dial(t, s)
	var open []net.Conn
	for range maxConnections + 4 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	if _, err := io.ReadAll(open[len(open)-1]); err != nil {
		t.Error(err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, in := range []string{"\x80\x02](X\x06\x00\x00\x00statuse.", "\x80\x02](](X\x01\x00\x00\x00aK\x07e\x88NJ\xff\xff\xff\xffe."} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		words, err := pickle.Parse(in)
		if err != nil {
			return
		}
		s := newServer(&node{})
		if v, err := s.answer(t.Context(), words); err == nil {
			pickle.Append(nil, v)
		}
	})
}
