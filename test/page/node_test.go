// Package page drives the page of real agents with a real browser, Debian's
// Chromium: every page with and without JavaScript, on a wide and on a narrow
// screen, light and dark, and by the rules of axe-core.
package page

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/keys"
)

// patience is generous: other tests keep the machine busy.
const patience = 90 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A node is a running agent.
type node struct {
	t      *testing.T
	dir    string
	client *control.Client
	id     *keys.Identity
	run    *exec.Cmd
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newNode(t *testing.T, name string) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	n.client = control.NewClient(filepath.Join(n.dir, "s"))
	var err error
	if n.id, err = keys.Open(filepath.Join(n.dir, "state"), name, time.Now()); err != nil {
		t.Fatal(err)
	}
	return n
}

// start runs the agent until the test ends.
func (n *node) start(program, config string) {
	n.t.Helper()
	n.write("config/agent.toml", config)
	cmd := exec.Command(program, "--config-dir", n.dir+"/config", "--state-dir", n.dir+"/state", "--socket", n.dir+"/s", "run")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.run = cmd
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // of one that was killed too
		if n.t.Failed() {
			n.t.Logf("%s", out.Bytes()[max(0, out.Len()-2000):])
		}
	})
	eventually(n.t, "the agent answers", func() bool {
		var s control.Status
		return n.client.Get(n.t.Context(), "/v1/status", nil, &s) == nil
	})
}

// kill ends the agent as a power cut does.
func (n *node) kill() {
	n.t.Helper()
	if err := n.run.Process.Kill(); err != nil {
		n.t.Fatal(err)
	}
	_ = n.run.Wait() // says that it was killed
}

func (n *node) write(name, text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// add appends to a file.
func (n *node) add(name, text string) {
	n.t.Helper()
	f, err := os.OpenFile(filepath.Join(n.dir, name), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) post(path string, body, answer any) {
	n.t.Helper()
	if err := n.client.Post(n.t.Context(), path, body, answer); err != nil {
		n.t.Fatalf("%s: %v", path, err)
	}
}

func (n *node) get(path string, query url.Values, answer any) {
	n.t.Helper()
	if err := n.client.Get(n.t.Context(), path, query, answer); err != nil {
		n.t.Fatalf("%s: %v", path, err)
	}
}

// banAll bans many addresses by hand, for times that differ.
func (n *node) banAll(topic ban.Topic, from, many int) {
	n.t.Helper()
	var q control.BanAllRequest
	for i := range many {
		a := from + i
		q.Bans = append(q.Bans, control.BanRequest{Target: ban.MustTarget(fmt.Sprintf("45.%d.%d.%d", a>>16&255, a>>8&255, a&255)), Topic: topic, For: int64(3600 + 60*i)})
	}
	var answer control.BanAllAnswer
	n.post("/v1/bans/all", q, &answer)
	if answer.Banned != many {
		n.t.Fatalf("banned %+v", answer)
	}
}

// world is a node with a page, and a peer of whom it hears.
type world struct {
	web, alice *node
	other      *node // a second node of the same person, by its socket
	program    string
	config     string // of web
}

// bansHere are this node's own bans, in a topic that alice says nothing in.
const bansHere = 130

func newWorld(t *testing.T) *world {
	t.Helper()
	program := filepath.Join(t.TempDir(), "agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags", "-X main.version=test", "-o", program, "../../cmd/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	w := &world{program: program, web: newNode(t, "web1"), alice: newNode(t, "alice"), other: newNode(t, "web2")}
	broker := freePort(t)
	const quiet = "[firewall]\nmode = \"off\"\n"
	w.other.start(program, quiet+"[topics.sshd]\ndetect = false\n")
	log := filepath.Join(w.web.dir, "auth.log")
	w.web.write("auth.log", "")
	w.config = enforcing() + fmt.Sprintf(`
[embedded_broker]
listen = %q
[page]
listen = "127.0.0.1:0"
nodes = { web2 = %q }
[topics.sshd]
subscribe = true
files = [%q]
journal = []
ban = "any of alice"
[topics.postfix]
detect = false
[operators.alice]
id = %q
`, broker, w.other.dir+"/s", log, w.alice.id.Operator())
	w.web.start(program, w.config)
	w.alice.start(program, quiet+fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\npublish = true\n", broker))
	line := time.Now().Format("2006-01-02T15:04:05.000000Z07:00")
	for i := range 6 {
		w.web.add("auth.log", fmt.Sprintf("%s web1 sshd[%d]: Failed password for root from 203.0.113.7 port %d ssh2\n", line, 700+i, 4000+i))
	}
	eventually(t, "an offender of its own log is banned", func() bool {
		var page control.BanPage
		w.web.get("/v1/bans/page", url.Values{"search": {"203.0.113.7"}}, &page)
		return page.Matching == 1
	})
	w.web.banAll("postfix", 1<<16, bansHere-20)
	w.web.banAll("dovecot", 2<<16, 20)
	w.alice.banAll("sshd", 3<<16, 90)
	eventually(t, "alice is heard", func() bool {
		var peers []control.Peer
		w.web.get("/v1/peers", nil, &peers)
		return len(peers) == 1 && peers[0].Claims >= 90
	})
	return w
}

// signInLink makes a one-time link.
func (w *world) signInLink() string {
	w.web.t.Helper()
	var link control.PageLink
	w.web.post("/v1/page/open", struct{}{}, &link)
	return link.URL
}

// needBrowser gives the path of Chromium.
func needBrowser(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil || os.Getenv("BANMESH_BROWSER") == "" {
		t.Skip("make test-page installs a browser and runs this")
	}
	return path
}

// axe gives the text of axe-core, "" where it was not fetched.
func axe(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../.deps/axe/axe.min.js")
	if err != nil {
		return ""
	}
	return string(b)
}
