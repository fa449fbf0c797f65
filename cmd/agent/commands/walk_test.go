package commands

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// reading are the commands that change nothing.
var reading = []string{
	"allow list", "allow pack list", "allow pack sign", "bans", "bouncers", "check", "denylist describe", "denylist export", "denylist list", "doctor", "events", "explain",
	"explain-line", "feeds", "filter test", "firewall check", "firewall show", "guests", "history", "hold list", "key card", "key node request", "key show",
	"lists", "lists show", "livepeer gate", "livepeer suspects", "notify", "network invite", "network show", "peers", "peers card", "peers list", "peers lists", "peers show", "policy test", "replay", "run",
	"status", "tap", "top", "topics check", "topics diff", "topics list", "topics search", "topics show",
}

// inScript are commands that change files alone, whose session checks the files:
// keys and documents, which nothing in the kernel follows at once.
var inScript = map[string]string{
	"lists add": "lists", "lists approve": "lists", "lists remove": "lists", "fetch": "lists", "bouncers add": "bouncers", "bouncers remove": "bouncers", "denylist publish": "denylists", "denylist renew": "denylists", "denylist import": "denylist",
	"import fail2ban": "fail2ban", "notify test": "notify", "init": "init", "guests remove": "guests", "allow pack add": "packs", "allow pack remove": "packs",
	"key backup": "key", "key install-document": "published", "key node certify": "key", "key node install": "key", "key node rotate": "key",
	"key operator new": "key", "key operator set": "key", "key restore": "state", "network join": "network",
	"peers follow": "published", "peers publish-trust": "published", "peers unfollow": "published", "peers succeed": "published",
	"page open": "page", "page close": "page", "topics install": "published", "topics publish-definition": "published", "report": "history",
}

// inTest are commands that a test elsewhere runs: the file, and a text of it.
var inTest = map[string][2]string{
	"crowdsec join":    {"../../../test/compat/capi_test.go", `agent("join"`},
	"crowdsec leave":   {"../../../test/compat/capi_test.go", `agent("leave"`},
	"pair":             {"pair_test.go", `"pair", "--json"`},
	"selftest":         {"../../../test/packages/reboot.sh", "banmesh selftest"},
	"firewall prepare": {"../../../test/host/check.sh", "banmesh-ipsets.service"}, // the unit runs it, before saved rules are loaded
	"key node move":    {"../../../internal/keys/machine_test.go", "Move("},
	"key node revoke":  {"../../../test/federation/agents_test.go", `"key", "node", "revoke"`},
}

// A walkStep is a command, the answer it has to give, and the state that has to be true
// then: in the kernel at once, and in ledger and kernel after the agent was killed
// and began again.
type walkStep struct {
	args    string
	input   string
	says    string // in its output
	refused string // in its refusal
	drops   string // addresses that the kernel drops then
	passes  string // and those that it does not
	denies  string // wallets that the ledger bans
	// file, below the configuration, has text; text "-" means that it lacks lacks.
	file, text, lacks string
	// first waits for a claim of the peer to be in the state, as TARGET STATE.
	first string
	// peer is a command of the peer's that comes first.
	peer string
	kill bool
}

var walk = []walkStep{
	{args: "ban 203.0.113.7", says: "banned 203.0.113.7 in sshd until", drops: "203.0.113.7", kill: true},
	{args: "ban --from-file -", input: "203.0.113.8\n2001:db8:7::/64\n127.0.0.1\n", says: "banned 2 targets in sshd", refused: "1 of 3 targets refused", drops: "203.0.113.8 2001:db8:7::/64", passes: "127.0.0.1", kill: true},
	{args: "ban 127.0.0.1", refused: "this must never be banned", passes: "127.0.0.1"},
	{args: "withdraw 203.0.113.8 --reason mistake", says: "withdrew 203.0.113.8 in sshd, of hand", drops: "203.0.113.7", passes: "203.0.113.8", kill: true},
	{args: "unban 203.0.113.7 --comment guest", says: "unbanned 203.0.113.7 in sshd", passes: "203.0.113.7", kill: true},
	{args: "ban 198.51.100.1", says: "banned", drops: "198.51.100.1"},
	{args: "allow add 198.51.100.0/24", says: "lifted the ban of 198.51.100.1 in sshd", passes: "198.51.100.1", kill: true},
	{args: "ban 198.51.100.1", refused: "agent allow remove 198.51.100.1` first", passes: "198.51.100.1"},
	{args: "allow remove 198.51.100.0/24", says: "198.51.100.0/24 is no longer exempt", kill: true},
	{args: "allow remove 198.51.100.0/24", refused: "not found"},

	{args: "peers trust alice ${ALICE}", says: "alice is operator", file: "conf.d/peers.toml", text: "${ALICE}"},
	{args: "topics subscribe sshd", says: "claims of others count from now on", file: "conf.d/topics.toml", text: "subscribe"},
	{peer: "ban 192.0.2.1", first: "192.0.2.1 ban", args: "undo alice", says: "lifted 1 ban that rested on alice", passes: "192.0.2.1", kill: true},
	{args: "undo alice --release", says: "alice counts again", drops: "192.0.2.1", kill: true},
	{args: "topics unsubscribe sshd", says: "now 0 bans begin and 1 ends", passes: "192.0.2.1", kill: true},
	{args: "topics subscribe sshd", says: "claims of others count from now on"},
	{peer: "ban 192.0.2.2 192.0.2.3 192.0.2.4", first: "192.0.2.4 held", args: "hold approve alice", says: "approved", drops: "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4", kill: true},
	{peer: "ban 192.0.2.5 192.0.2.6 192.0.2.7", first: "192.0.2.7 held", args: "hold reject alice", says: "rejected", drops: "192.0.2.1", passes: "192.0.2.7", kill: true},
	{args: "unban 192.0.2.1 --dispute", says: "unbanned 192.0.2.1 in sshd", passes: "192.0.2.1", kill: true},
	{args: "peers remove alice --yes", says: "alice", passes: "192.0.2.2 192.0.2.3", file: "conf.d/peers.toml", text: "-", lacks: "${ALICE}", kill: true},
	{args: "peers add bob bbbbbbbbbbbbbbbbbbbbbbbbba", says: "watched only until", file: "conf.d/peers.toml", text: "bbbbbbbbbbbbbbbbbbbbbbbbba"},

	{args: "topics publish sshd", says: "written to", file: "conf.d/topics.toml", text: "publish = true"},
	{args: "topics unpublish sshd", says: "written to", file: "conf.d/topics.toml", text: "-", lacks: "publish = true"},
	{args: "topics detect dovecot", says: "dovecot", file: "conf.d/topics.toml", text: "dovecot"},
	{args: "topics ignore dovecot", says: "dovecot", file: "conf.d/topics.toml", text: "detect = false"},
	{args: "simulate on sshd", says: "sshd", file: "conf.d/topics.toml", text: "simulate = true"},
	{args: "simulate off sshd", says: "sshd", file: "conf.d/topics.toml", text: "-", lacks: "simulate = true"},
	{args: "reload", says: "the running agent follows"},

	{args: "denylist add 0x52908400098527886E0F7030069857D2E4169EE7 --topic broadcaster-addresses", says: "0x52908400098527886E0F7030069857D2E4169EE7", denies: "0x52908400098527886E0F7030069857D2E4169EE7", kill: true},
	{args: "denylist remove 0x52908400098527886E0F7030069857D2E4169EE7", says: "0x52908400098527886E0F7030069857D2E4169EE7", passes: "0x52908400098527886E0F7030069857D2E4169EE7", kill: true},

	{args: "ban 203.0.113.9", says: "banned", drops: "203.0.113.9"},
	{args: "firewall panic", says: "enforcement is off: no ban is enforced any more", passes: "203.0.113.9"},
	{args: "firewall resume", says: "enforcement is on", first: "203.0.113.9 ban", drops: "203.0.113.9", kill: true},
	{args: "firewall flush", refused: "stop the agent first", drops: "203.0.113.9"},
}

func TestEveryCommandThatChangesSomethingIsWalked(t *testing.T) {
	walked := map[string]bool{}
	for _, s := range walk {
		words := strings.Fields(s.args)
		walked[words[0]] = true
		if len(words) > 1 {
			walked[words[0]+" "+words[1]] = true
		}
	}
	seen := map[string]bool{}
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "agent ")
		script, scripted := inScript[name]
		test, tested := inTest[name]
		reads := slices.Contains(reading, name)
		seen[name] = true
		if c.Runnable() && c.HasParent() && (!c.HasSubCommands() || reads) {
			if !reads && !scripted && !tested && !walked[name] {
				t.Errorf("agent %s is in none of the tables of this test: say how it is shown that what it prints is true", name)
			}
			if reads && (scripted || tested) {
				t.Errorf("agent %s is in two tables", name)
			}
		}
		if scripted {
			if b, err := os.ReadFile(filepath.Join("testdata", script+".txtar")); err != nil || !bytes.Contains(b, []byte("agent "+name)) {
				t.Errorf("testdata/%s.txtar does not run agent %s (%v)", script, name, err)
			}
		}
		if tested {
			if b, err := os.ReadFile(test[0]); err != nil || !bytes.Contains(b, []byte(test[1])) {
				t.Errorf("%s does not test agent %s (%v)", test[0], name, err)
			}
		}
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look(newRootCommand(cli.Program{Name: "agent"}))
	for _, name := range reading {
		if !seen[name] {
			t.Errorf("agent %s is no command", name)
		}
	}
}

// A walkNode is an agent with directories of its own, in the test's namespace.
type walkNode struct {
	t   *testing.T
	dir string
	run *exec.Cmd
	log said

	proxies int // that stood before its socket
}

// said is the output of a process so far.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func newWalkNode(t *testing.T, config string) *walkNode {
	n := &walkNode{t: t, dir: t.TempDir()}
	testnet.Must(t, os.MkdirAll(filepath.Join(n.dir, "config"), 0o755))
	testnet.Must(t, os.WriteFile(filepath.Join(n.dir, "config", "agent.toml"), []byte(config), 0o644))
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", n.dir, n.log.String())
		}
	})
	n.start()
	return n
}

func (n *walkNode) command(args ...string) *exec.Cmd {
	c := exec.Command("agent", args...)
	c.Env = append(os.Environ(), "BANMESH_CONFIG_DIR="+n.dir+"/config", "BANMESH_STATE_DIR="+n.dir+"/state", "BANMESH_SOCKET="+n.dir+"/agent.sock")
	return c
}

func (n *walkNode) start() {
	n.run = n.command("run")
	n.run.Stdout, n.run.Stderr = &n.log, &n.log
	testnet.Must(n.t, n.run.Start())
	n.until("the agent answers", func() bool {
		var s control.Status
		return control.NewClient(n.dir+"/agent.sock").Get(n.t.Context(), "/v1/status", nil, &s) == nil
	})
}

func (n *walkNode) kill() {
	if n.run != nil {
		_ = n.run.Process.Kill()
		_ = n.run.Wait()
		n.run = nil
	}
}

func (n *walkNode) until(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// do runs a command and gives its output and refusal.
func (n *walkNode) do(input string, args ...string) (out, refusal string, err error) {
	c := n.command(args...)
	var o, e bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &o, &e
	err = c.Run()
	return o.String(), e.String(), err
}

// is gives the verdict on a target: ban, watch, held or none.
func (n *walkNode) is(target string) string {
	out, _, err := n.do("", "explain", target, "--json")
	var e control.Explanation
	if err != nil || json.Unmarshal([]byte(out), &e) != nil {
		return "no answer"
	}
	for _, s := range e.Standings {
		switch {
		case s.Action == control.ActionBan:
			return "ban"
		case s.Why == "held" || slices.ContainsFunc(s.Claims, func(c control.Claimed) bool { return c.WhyNot == "held" }):
			return "held"
		}
	}
	return "none"
}

// dropped says whether the kernel's table has a target among its bans.
func (n *walkNode) dropped(target string) bool {
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	testnet.Must(n.t, err)
	if strings.Contains(string(out), "table inet banmesh-off") {
		return false
	}
	// Only maps of bans have a mark behind the time; a /64 is its first address.
	return regexp.MustCompile(regexp.QuoteMeta(strings.TrimSuffix(target, "/64")) + ` timeout \S+ expires \S+ : 0x`).Match(out)
}

func TestWhatACommandPrintsIsTrueAlsoAfterAKill(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not here")
	}
	t.Parallel()
	testnet.Enter(t)
	node, alice, fill := newWalk(t)
	for _, step := range walk {
		node.walk(alice, step, fill)
		if t.Failed() {
			return
		}
	}
}

// newWalk starts the node that is walked over, and a peer of it with a broker.
func newWalk(t *testing.T) (node, alice *walkNode, fill *strings.Replacer) {
	alice = newWalkNode(t, `
[firewall]
mode = "off"
[embedded_broker]
listen = "127.0.0.1:18830"
[topics.sshd]
files = []
journal = []
publish = true
`)
	node = newWalkNode(t, `
[[brokers]]
url = "tcp://127.0.0.1:18830"
[topics.sshd]
files = []
journal = []
[topics.sshd.limits]
per_hour = 1
turnover = 1
`)
	var s control.Status
	testnet.Must(t, control.NewClient(alice.dir+"/agent.sock").Get(t.Context(), "/v1/status", nil, &s))
	return node, alice, strings.NewReplacer("${ALICE}", s.Operator)
}

// before brings about the state that a step begins with.
func (n *walkNode) before(alice *walkNode, s walkStep) {
	n.t.Helper()
	if s.peer != "" {
		if _, refusal, err := alice.do("", strings.Fields(s.peer)...); err != nil {
			n.t.Fatalf("the peer's %s: %v\n%s", s.peer, err, refusal)
		}
	}
	if target, state, ok := strings.Cut(s.first, " "); ok {
		n.until(s.first, func() bool { return n.is(target) == state })
	}
}

func (n *walkNode) walk(alice *walkNode, s walkStep, fill *strings.Replacer) {
	n.t.Helper()
	n.before(alice, s)
	out, refusal, err := n.do(s.input, strings.Fields(fill.Replace(s.args))...)
	if !strings.Contains(out, s.says) || !strings.Contains(refusal, s.refused) || (err == nil) != (s.refused == "") {
		n.t.Errorf("agent %s: %v\nprinted %s\nrefused %s\nwant %q, refused %q", s.args, err, out, refusal, s.says, s.refused)
		return
	}
	n.check(s, "when it answered", fill)
	if !s.kill {
		return
	}
	n.kill()
	n.check(s, "when it was killed", fill)
	n.start()
	n.check(s, "when it began again", fill)
}

// check compares kernel, ledger and files with the state that a step says.
func (n *walkNode) check(s walkStep, when string, fill *strings.Replacer) {
	n.t.Helper()
	for _, x := range strings.Fields(s.drops) {
		if is := n.is(x); is != "ban" {
			n.t.Errorf("agent %s: %s the ledger says of %s: %s", s.args, when, x, is)
		}
		if !n.dropped(x) {
			n.t.Errorf("agent %s: %s the kernel does not drop %s", s.args, when, x)
		}
	}
	for _, x := range strings.Fields(s.passes) {
		if n.dropped(x) {
			n.t.Errorf("agent %s: %s the kernel drops %s", s.args, when, x)
		}
		if is := n.is(x); is == "ban" && !strings.HasPrefix(s.args, "firewall ") {
			n.t.Errorf("agent %s: %s the ledger bans %s", s.args, when, x)
		}
	}
	for _, x := range strings.Fields(s.denies) {
		if is := n.is(x); is != "ban" {
			n.t.Errorf("agent %s: %s the ledger says of %s: %s", s.args, when, x, is)
		}
	}
	if s.file == "" {
		return
	}
	b, err := os.ReadFile(filepath.Join(n.dir, "config", s.file))
	if s.text == "-" {
		if strings.Contains(string(b), fill.Replace(s.lacks)) {
			n.t.Errorf("agent %s: %s %s has %s:\n%s", s.args, when, s.file, s.lacks, b)
		}
	} else if err != nil || !strings.Contains(string(b), fill.Replace(s.text)) {
		n.t.Errorf("agent %s: %s %s lacks %s (%v):\n%s", s.args, when, s.file, s.text, err, b)
	}
}
