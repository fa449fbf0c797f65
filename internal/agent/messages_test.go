package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/procnet"
)

// heard is a message as a webhook gets it.
type heard struct {
	Kind    string `json:"kind"`
	Text    string `json:"text"`
	Notices []struct {
		Text string `json:"text"`
		Mend string `json:"mend"`
		Over bool   `json:"over"`
	} `json:"notices"`
}

// toldNode is a node whose clock a test moves, and which tells a webhook.
type toldNode struct {
	*node
	shift atomic.Int64

	mu  sync.Mutex
	got []heard
}

func (n *toldNode) pass(d time.Duration) { n.shift.Add(int64(d)) }

// newTold makes a node that is not started yet.
func newTold(t *testing.T, kind, config string) *toldNode {
	t.Helper()
	n := &toldNode{node: &node{t: t, dir: t.TempDir()}}
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var m heard
		if err := json.Unmarshal(b, &m); err != nil {
			t.Errorf("a message is %q", b)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.got = append(n.got, m)
	}))
	t.Cleanup(sink.Close)
	key := filepath.Join(n.dir, "key")
	if err := os.WriteFile(key, []byte("a key of a test, long enough\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.node.now = func() time.Time { return time.Now().Add(time.Duration(n.shift.Load())) }
	n.look = 20 * time.Millisecond
	n.configure(config + fmt.Sprintf("[[notify]]\nname = \"hook\"\ntype = \"webhook\"\nurl = %q\ntoken_file = %q\non = [%q]\n", sink.URL, key, kind))
	return n
}

// tells waits for a message of a kind that says something, and moves the clock by steps
// meanwhile: a fault that stands for long enough is told, and one that waits for others of its
// kind is sent.
func (n *toldNode) tells(kind, text, mend string, step time.Duration) (m heard) {
	n.t.Helper()
	n.eventually("a message about "+text, func() bool {
		n.pass(step)
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, m = range n.got {
			if m.Kind != kind {
				n.t.Fatalf("a message that nobody asked for: %+v", m)
			}
			for _, x := range m.Notices {
				if strings.Contains(x.Text, text) && strings.Contains(x.Mend, mend) && strings.Contains(m.Text, text) {
					return true
				}
			}
		}
		return false
	})
	return m
}

// Each kind of message, from the event in the agent to a receiver that gets it.
func TestEachKindOfMessageFromItsEventToAReceiver(t *testing.T) {
	t.Parallel()
	believing := quiet + trusts("alice", alice)
	for kind, c := range map[string]struct {
		config     string
		prepare    func(*toldNode)
		happens    func(*toldNode)
		text, mend string
		step       time.Duration // of the clock; 0 is two seconds
	}{
		"ban": {
			config: believing, text: "45.1.1.1 is banned in sshd until", mend: "agent explain 45.1.1.1",
			happens: func(n *toldNode) { n.hear(alice, "45.1.1.1") },
		},
		"hold": {
			config: believing + "[topics.sshd.limits]\nper_hour = 2\n", text: "claims of alice in sshd wait", mend: "agent hold approve alice --topic sshd",
			happens: func(n *toldNode) { n.hear(alice, "45.1.1.1", "45.1.1.2", "45.1.1.3", "45.1.1.4") },
		},
		"quarantine": {
			config: believing, text: "alice is quarantined", mend: "agent undo alice --release",
			prepare: func(n *toldNode) {
				n.network = neverban.Network{Gateways: []neverban.Gateway{{Addr: netip.MustParseAddr("45.1.1.1"), Interface: "eth0", Default: true}}}
			},
			happens: func(n *toldNode) { n.hear(alice, "45.1.1.0/30", "45.1.1.0/29", "45.1.1.0/28", "45.1.1.1") },
		},
		"mistake": {
			config: believing, text: "alice withdrew its claim of 45.1.1.1 in sshd as a mistake", mend: "agent withdraw 45.1.1.1 --reason mistake",
			happens: func(n *toldNode) {
				n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
				n.hear(alice, "45.1.1.1")
				feed := ban.Feed{Topic: "sshd", Operator: alice, Node: ban.NodeOf([]byte("node"))}
				if err := n.a.ledger.Peers.Apply(ban.Change{Feed: feed, Withdrawn: ban.Withdraw(ban.ReasonMistake, ban.MustTarget("45.1.1.1"))}); err != nil {
					n.t.Fatal(err)
				}
			},
		},
		"ending": {
			config: quiet, text: "Own denials of wallets end soon", mend: "agent denylist renew",
			happens: func(n *toldNode) {
				n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("0x52908400098527886E0F7030069857D2E4169EE7"), Topic: "gateway-spam", For: 24 * 3600}, nil)
			},
		},
		"silent": {
			config: "[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\nfiles = [\"/nonexistent/auth.log\"]\njournal = []\n", text: "None of the logs of a topic is there.", mend: "name the log in agent.toml",
			happens: func(*toldNode) {},
		},
		"fault": {
			// Nothing warns of a topic that is accepted from nobody: only the doctor finds it.
			config: quiet + "subscribe = true\n", text: "Bans of a topic are accepted, and nobody is trusted in it.", mend: "agent peers add NAME ID",
			happens: func(*toldNode) {},
		},
		"receipt": {
			config: believing, text: "met 0 attackers before they tried, 0 known guests touched", mend: "",
			happens: func(n *toldNode) { n.hear(alice, "45.1.1.1") }, step: time.Hour,
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := newTold(t, kind, c.config)
			if c.prepare != nil {
				c.prepare(n)
			}
			n.start()
			c.happens(n)
			n.tells(kind, c.text, c.mend, cmp.Or(c.step, 2*time.Second))
		})
	}
	t.Run("unbitten", func(t *testing.T) {
		t.Parallel()
		l := newLog(t)
		n := newTold(t, "unbitten", detecting("sshd", l, "corroborate = \"off\"\n"))
		n.sockets = []procnet.Socket{{Local: netip.MustParseAddrPort("0.0.0.0:22"), State: procnet.Listening}}
		n.start()
		offends := func(times int) {
			for i := range times {
				l.saysAt(n.now(), "web sshd[7]: Failed password for root from 45.1.1.1 port %d ssh2", 4000+i)
			}
		}
		offends(5)
		n.eventually("it is banned", func() bool { return len(n.a.table.Of(ban.MustTarget("45.1.1.1"))) == 1 })
		n.pass(time.Minute)
		offends(3)
		if m := n.tells("unbitten", "Log lines go on naming an address after its ban", "agent explain ADDRESS", 2*time.Second); strings.Contains(m.Text, "root") || strings.Contains(m.Text, l.path) {
			t.Errorf("a message says more than it may: %+v", m)
		}
	})
	t.Run("a dispute", func(t *testing.T) {
		t.Parallel()
		n := newTold(t, "mistake", believing)
		n.start()
		n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
		feed := ban.Feed{Topic: "sshd", Operator: alice, Node: ban.NodeOf([]byte("node"))}
		if err := n.a.ledger.Peers.Dispute(feed, []ledger.Dispute{{Target: ban.MustTarget("45.1.1.1"), End: time.Now().Add(time.Hour)}}); err != nil {
			t.Fatal(err)
		}
		n.tells("mistake", "alice says that 45.1.1.1 should not be banned in sshd", "agent withdraw 45.1.1.1", 2*time.Second)
	})
}

// A fault that only the doctor finds is told when it stands, and again when it is over.
func TestTheDoctorTurningRedIsToldAndItsEndToo(t *testing.T) {
	t.Parallel()
	n := newTold(t, "fault", quiet+trusts("alice", alice))
	n.start()
	good, err := os.ReadFile(filepath.Join(n.dir, "config", "agent.toml"))
	if err != nil {
		t.Fatal(err)
	}
	n.configure(string(good) + "nonsense = 1\n") // a file that nobody has had read yet
	n.tells("fault", "The configuration's files have a fault", "agent check, then agent reload", 2*time.Second)
	n.configure(string(good))
	n.tells("fault", "over: The configuration's files have a fault", "", 2*time.Second)
	page, err := n.a.chronicle.Find(history.Query{Kinds: []history.Kind{history.Config}})
	if err != nil || len(page.Events) > 0 {
		t.Errorf("to examine changed the configuration: %+v, %v", page.Events, errors.Unwrap(err))
	}
}
