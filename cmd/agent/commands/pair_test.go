package commands

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/keys"
)

// server is a machine: its own directories, and its agent where it runs.
type server struct {
	t      *testing.T
	dir    string
	paths  paths
	client *control.Client
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	s.paths = paths{config: filepath.Join(s.dir, "config"), state: filepath.Join(s.dir, "state"), socket: filepath.Join(s.dir, "s")}
	s.client = control.NewClient(s.paths.socket)
	if err := os.MkdirAll(s.paths.config, 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("[firewall]\nmode = \"off\"\n[topics.sshd]\nfiles = [\"/dev/null\"]\n")
	return s
}

func (s *server) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.paths.config, "agent.toml"), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) command(ctx context.Context, out, errs io.Writer, args ...string) int {
	args = append(args, "--config-dir", s.paths.config, "--state-dir", s.paths.state, "--socket", s.paths.socket)
	return Run(ctx, cli.Program{Name: "agent"}, args, strings.NewReader(""), out, errs)
}

// run runs a command to its end.
func (s *server) run(args ...string) (out string, code int) {
	var b bytes.Buffer
	code = s.command(s.t.Context(), &b, &b, args...)
	return b.String(), code
}

// agent runs the agent until the test, or the function that it returns, ends it.
func (s *server) agent() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var said bytes.Buffer
	go func() {
		defer close(ended)
		s.command(ctx, &said, &said, "run", "--quiet")
	}()
	stop = func() { cancel(); <-ended }
	s.t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); s.client.Get(s.t.Context(), "/v1/status", nil, &control.Status{}) != nil; time.Sleep(5 * time.Millisecond) {
		select {
		case <-ended:
			s.t.Fatalf("the agent ended: %s", said.String())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the agent does not answer: %s", said.String())
		}
	}
	return stop
}

// hosting is a `pair` that waits.
type waiting struct {
	first, last pairReport
	errs        bytes.Buffer
	code        int
	ended       chan struct{}
}

// host begins a pairing and waits for its code.
func (s *server) host(args ...string) *waiting {
	s.t.Helper()
	w := &waiting{ended: make(chan struct{})}
	r, out := io.Pipe()
	ctx, cancel := context.WithCancel(s.t.Context())
	go func() {
		defer close(w.ended)
		w.code = s.command(ctx, out, &w.errs, append([]string{"pair", "--json", "--yes", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:" + freePort(s.t)}, args...)...)
		out.Close()
	}()
	s.t.Cleanup(func() { cancel(); <-w.ended })
	lines := bufio.NewReader(r)
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &w.first)
	}
	if err != nil || w.first.Code == "" {
		<-w.ended
		s.t.Fatalf("pair said %q, %v, %s", line, err, w.errs.String())
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		if line, err := lines.ReadBytes('\n'); err == nil {
			_ = json.Unmarshal(line, &w.last)
		}
		_, _ = io.Copy(io.Discard, lines)
	}()
	ended := w.ended
	w.ended = make(chan struct{})
	go func() { <-ended; <-read; close(w.ended) }()
	return w
}

func (w *waiting) at() string {
	return "127.0.0.1:" + strings.TrimSpace(string(mustJSON(w.first.Port)))
}

func mustJSON(v any) []byte { b, _ := json.Marshal(v); return b }

// tree is all files of a machine's configuration and state.
func (s *server) tree() map[string]string {
	all := map[string]string{}
	_ = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "node.key" {
			b, _ := os.ReadFile(path)
			all[path] = string(b)
		}
		return nil
	})
	return all
}

func (s *server) identity() *keys.Identity {
	s.t.Helper()
	id, err := keys.Load(s.paths.state)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// Three servers of one person, the second with an operator of its own before, become
// three nodes of one operator by a command each, and a ban on one is a ban on all.
func TestServersJoinOverACode(t *testing.T) {
	t.Parallel()
	first, second, third := newServer(t), newServer(t), newServer(t)
	port := freePort(t)
	if _, err := keys.Open(second.paths.state, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	for i, s := range []*server{second, third} {
		w := first.host("--broker-listen", "127.0.0.1:"+port)
		out, code := s.run("pair", "--json", w.at(), strings.ToUpper(w.first.Code))
		<-w.ended
		if code != 0 || w.code != 0 {
			t.Fatalf("pairing %d ended with %d and %d: %s%s", i, code, w.code, out, w.errs.String())
		}
		var r pairReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Node != w.last.Node || r.Operator != first.identity().Operator().String() || r.Operator != s.identity().Operator().String() || r.Node != s.identity().Node().String() {
			t.Errorf("they say %+v and %+v", r, w.last)
		}
		if len(r.Publish) != 1 || r.Brokers[0] != "ssl://127.0.0.1:"+port || s.identity().HasRoot() {
			t.Errorf("handed over: %+v", r)
		}
	}
	for _, s := range []*server{first, second, third} {
		if _, err := config.Load(s.paths.config); err != nil {
			t.Error(err)
		}
		s.agent()
	}
	for from, target := range map[*server]string{first: "45.1.1.1", third: "45.1.1.3"} {
		if out, code := from.run("ban", target, "--topic", "sshd", "--for", "1h"); code != 0 {
			t.Fatal(out)
		}
		for _, to := range []*server{first, second, third} {
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				if out, _ := to.run("bans"); strings.Contains(out, target) {
					break
				}
				if time.Now().After(deadline) {
					out, _ := to.run("status")
					t.Fatalf("%s is not banned everywhere:\n%s", target, out)
				}
			}
		}
	}
}

// A topic that a person switched off stays off, on either side, and is not called shared.
func TestAPairingSaysWhichTopicsStayOff(t *testing.T) {
	t.Parallel()
	first, second := newServer(t), newServer(t)
	pair := func() (host, joined pairReport) {
		t.Helper()
		w := first.host("--topic", "sshd")
		out, code := second.run("pair", "--json", w.at(), w.first.Code)
		<-w.ended
		if code != 0 || w.code != 0 {
			t.Fatalf("%d, %d: %s%s", code, w.code, out, w.errs.String())
		}
		if err := json.Unmarshal([]byte(out), &joined); err != nil {
			t.Fatal(err)
		}
		return w.last, joined
	}
	if out, code := second.run("topics", "unpublish", "sshd"); code != 0 {
		t.Fatal(out)
	}
	if host, joined := pair(); len(host.Accept) != 1 || len(host.Publish) != 1 || len(joined.Accept) != 1 || len(joined.Publish) != 0 {
		t.Errorf("the second publishes nothing, and they say %+v and %+v", host, joined)
	}
	if out, code := first.run("topics", "unsubscribe", "sshd"); code != 0 {
		t.Fatal(out)
	}
	if host, joined := pair(); len(host.Accept) != 0 || len(host.Publish) != 1 || len(joined.Accept) != 0 || len(joined.Publish) != 0 {
		t.Errorf("the first accepts nothing, and they say %+v and %+v", host, joined)
	}
	w := first.host("--topic", "sshd")
	out, code := second.run("pair", w.at(), w.first.Code)
	<-w.ended
	if code != 0 || !strings.Contains(out, "topic sshd is not published: it was switched off here before") {
		t.Errorf("%d: %s", code, out)
	}
}

// A wrong code changes nothing; the right one after it does, and the same machine may come again.
func TestAWrongCodeChangesNothing(t *testing.T) {
	t.Parallel()
	first, second := newServer(t), newServer(t)
	port := freePort(t)
	w := first.host("--broker-listen", "127.0.0.1:"+port)
	if out, code := second.run("pair", w.at(), "babab-babab"); code != cli.ExitError || !strings.Contains(out, "the code is not the one") || !strings.Contains(out, "Nothing was changed") {
		t.Errorf("a wrong code: %d %s", code, out)
	}
	if out, code := second.run("pair", w.at(), "bab"); code != cli.ExitUsage {
		t.Errorf("no code: %d %s", code, out)
	}
	if _, err := keys.Load(second.paths.state); !errors.Is(err, keys.ErrNotCertified) {
		t.Errorf("a wrong code left %v", err)
	}
	if _, err := os.Stat(filepath.Join(second.paths.config, "conf.d")); err == nil {
		t.Error("a wrong code wrote configuration")
	}
	out, code := second.run("pair", w.at(), w.first.Code)
	<-w.ended
	if code != 0 || w.code != 0 || !strings.Contains(w.errs.String(), "a wrong code came from 127.0.0.1") {
		t.Fatalf("then %d, %d: %s%s", code, w.code, out, w.errs.String())
	}
	for line := range strings.Lines(out) {
		if len(line) > 81 && !strings.HasPrefix(line, "written") {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	before := second.tree()
	w = first.host("--broker-listen", "127.0.0.1:"+port)
	if out, code := second.run("pair", w.at(), w.first.Code); code != 0 {
		t.Fatal(out)
	}
	<-w.ended
	for path, text := range second.tree() {
		if before[path] != text && !strings.HasSuffix(path, "operator.card") {
			t.Errorf("the same machine comes again, and %s changes", path)
		}
	}
	// The second has no root key: nobody joins there.
	if out, code := second.run("pair", "--yes"); code == 0 || !strings.Contains(out, "root key is not on this machine") {
		t.Errorf("a host without the root key: %d %s", code, out)
	}
}

// A host that was killed after it had written its configuration, and a machine that was
// killed before it was certified, pair at the next try as if nothing had been.
func TestAPairingThatWasCutShortIsMadeAgain(t *testing.T) {
	t.Parallel()
	first, second := newServer(t), newServer(t)
	port := freePort(t)
	stop := first.agent()
	for _, s := range []*server{first, second} {
		text := "network = \"banmesh\"\n[embedded_broker]\nenabled = true\nlisten = \"127.0.0.1:" + port + "\"\ntls = true\n"
		if s == second {
			text = "network = \"banmesh\"\n[[brokers]]\nurl = \"ssl://127.0.0.1:" + port + "\"\nfingerprint = \"" + strings.Repeat("0", 64) + "\"\n"
		}
		if err := config.WriteAtomic(filepath.Join(s.paths.config, "conf.d/network.toml"), []byte("# Written by `agent`; later commands change it.\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w := first.host("--broker-listen", "127.0.0.1:"+port, "--topic", "sshd")
	out, code := second.run("pair", w.at(), w.first.Code)
	<-w.ended
	if code != 0 || w.code != 0 {
		t.Fatalf("%d, %d: %s%s", code, w.code, out, w.errs.String())
	}
	stop()
	first.agent()
	second.agent()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var s control.Status
		if err := second.client.Get(t.Context(), "/v1/status", nil, &s); err == nil && len(s.Brokers) == 1 && s.Brokers[0].Connected {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not reach the broker: %+v", s.Brokers)
		}
	}
}

// A machine that runs, that has other nodes, or whose answer does not hold, stays as it
// is, and both sides say so.
func TestWhoCannotJoinStaysAsItIs(t *testing.T) {
	t.Parallel()
	first, second, third := newServer(t), newServer(t), newServer(t)
	w := second.host()
	if out, code := third.run("pair", w.at(), w.first.Code); code != 0 {
		t.Fatal(out)
	}
	<-w.ended
	before := second.tree()
	w = first.host()
	out, code := second.run("pair", w.at(), w.first.Code)
	<-w.ended
	if code == 0 || !strings.Contains(out, "root key of other nodes") || w.code != cli.ExitPartly || !strings.Contains(w.errs.String(), "the other machine did not join") {
		t.Errorf("who has other nodes: %d %s\n%d %s", code, out, w.code, w.errs.String())
	}
	for path, text := range second.tree() {
		if before[path] != text {
			t.Errorf("%s changed", path)
		}
	}
	fourth := newServer(t)
	stop := fourth.agent()
	if out, code := fourth.run("pair", "127.0.0.1:1", "babab-babab"); code == 0 || !strings.Contains(out, "end `agent run` first") {
		t.Errorf("beside a running agent: %d %s", code, out)
	}
	stop()
	if out, code := fourth.run("pair", "127.0.0.1:1", "babab-babab"); code == 0 || !strings.Contains(out, "run `banmesh pair` on 127.0.0.1:1 first") {
		t.Errorf("where nobody waits: %d %s", code, out)
	}
	if out, code := fourth.run("pair"); code == 0 || !strings.Contains(out, "--yes lets this agent run one") {
		t.Errorf("without a broker and a terminal: %d %s", code, out)
	}
	// Whoever waits and is ended leaves nothing behind.
	before = fourth.tree()
	out, code = fourth.run("pair", "--yes", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0", "--for", "1ms")
	if code == 0 || !strings.Contains(out, "nobody came with the code in time") || !strings.Contains(out, "sudo banmesh pair ") {
		t.Errorf("waiting in vain: %d %s", code, out)
	}
	for path, text := range fourth.tree() {
		if before[path] != text && filepath.Base(path) != "broker.pem" {
			t.Errorf("waiting in vain wrote %s", path)
		}
	}
}

// freePort is a port that nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
