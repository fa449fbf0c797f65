package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/procnet"
)

// node is a running agent whose firewall and network are the test's.
type node struct {
	t       testing.TB
	dir     string
	fake    *firewall.Fake
	client  *control.Client
	a       *agent
	stop    func()
	machine string           // on which it runs; "" is none
	now     func() time.Time // nil is the machine's clock
	look    time.Duration    // how often messages look at warnings; 0: the usual
	// signals make it read its configuration again, as SIGHUP does.
	signals chan os.Signal

	mu      sync.Mutex
	network neverban.Network
	sockets []procnet.Socket
}

// quiet begins the configuration of every node of these tests.
const quiet = "[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\ndetect = false\n"

func newNode(t testing.TB, config string) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	for _, port := range []uint16{22, 443, 8935} {
		n.sockets = append(n.sockets, procnet.Socket{Local: netip.AddrPortFrom(netip.IPv4Unspecified(), port), State: procnet.Listening})
	}
	n.configure(config)
	n.start()
	return n
}

func (n *node) configure(text string) {
	n.t.Helper()
	path := filepath.Join(n.dir, "config", "agent.toml")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		n.t.Fatal(err)
	}
}

// start runs the node, with an empty firewall, until the test or stop ends it.
func (n *node) start() {
	n.t.Helper()
	n.fake = firewall.NewFake(nil)
	socket := filepath.Join(n.dir, "s")
	o := Options{ConfigDir: filepath.Join(n.dir, "config"), StateDir: filepath.Join(n.dir, "state"), Socket: socket}
	opened := make(chan *agent, 1)
	n.signals = make(chan os.Signal)
	o.Reload, o.Machine, o.Now = n.signals, n.machine, n.now
	o.testing.look = n.look
	o.testing.firewall, o.testing.opened = n.fake, func(a *agent) { opened <- a }
	o.testing.sockets = func() ([]procnet.Socket, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.sockets, nil
	}
	o.testing.network = func() (neverban.Network, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.network, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("the agent ended with: %v", err)
		}
	})
	n.t.Cleanup(n.stop)
	select {
	case n.a = <-opened:
	case err := <-done:
		done <- err
		n.t.Fatalf("the agent did not start: %v", err)
	}
	n.client = control.NewClient(socket)
	n.eventually("the agent answers", func() bool {
		var s control.Status
		return n.client.Get(n.t.Context(), "/v1/status", nil, &s) == nil
	})
}

func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

func (n *node) eventually(what string, f func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			n.t.Fatalf("it never came true that %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (n *node) post(path string, body, answer any) {
	n.t.Helper()
	if err := n.client.Post(n.t.Context(), path, body, answer); err != nil {
		n.t.Fatalf("%s: %v", path, err)
	}
}

// drops says whether the firewall drops packets of an address to sshd.
func (n *node) drops(address string) bool {
	return n.fake.Packet(netip.MustParseAddr(address), "tcp", 22, 40)
}

// hear gives the node a claim of an operator, as if its feed had said so.
func (n *node) hear(o ban.Operator, targets ...string) {
	n.t.Helper()
	n.hearIn("sshd", o, targets...)
}

func (n *node) hearIn(topic ban.Topic, o ban.Operator, targets ...string) {
	n.t.Helper()
	c := ban.Change{Feed: ban.Feed{Topic: topic, Operator: o, Node: ban.NodeOf([]byte("node"))}}
	for _, x := range targets {
		c.Claims = append(c.Claims, ban.Claim{Target: ban.MustTarget(x), End: time.Now().Add(time.Hour), Class: ban.ClassAuth, Hits: 9, Established: true, Basis: ban.BasisStrong})
	}
	if err := n.a.ledger.Peers.Apply(c); err != nil {
		n.t.Fatal(err)
	}
}

func trusts(name string, o ban.Operator) string {
	return fmt.Sprintf("subscribe = true\n[operators.%s]\nid = %q\n", name, o)
}

var alice = ban.OperatorOf([]byte("alice"))

func TestABanByHandIsEnforcedAndAnUnbanIsStickyOverARestart(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.2"), Topic: "sshd"}, nil)
	n.eventually("both are enforced", func() bool { return n.drops("45.1.1.1") && n.drops("45.1.1.2") })
	var answer control.UnbanAnswer
	n.post("/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.1.1.1")}, &answer)
	if len(answer.Lifted) != 1 || !answer.Exempt.After(time.Now().Add(6*24*time.Hour)) {
		t.Errorf("the answer is %+v", answer)
	}
	n.eventually("it is lifted", func() bool { return !n.drops("45.1.1.1") && n.drops("45.1.1.2") })

	n.restart()
	if n.drops("45.1.1.1") || !n.drops("45.1.1.2") {
		t.Error("a restarted node enforces something else before it answers")
	}
	n.hear(alice, "45.1.1.1", "45.1.1.3")
	n.eventually("the peer's other claim is enforced", func() bool { return n.drops("45.1.1.3") })
	if n.drops("45.1.1.1") {
		t.Error("a peer brought back what a person unbanned")
	}
	x := n.explain("45.1.1.1")
	if len(x.Standings) != 1 || x.Standings[0].Why != policy.ReasonExempt.String() || x.Shield == "" {
		t.Errorf("explain says %+v", x)
	}
}

func (n *node) explain(target string) (x control.Explanation) {
	n.t.Helper()
	if err := n.client.Get(n.t.Context(), "/v1/explain", map[string][]string{"target": {target}}, &x); err != nil {
		n.t.Fatal(err)
	}
	return x
}

func TestAReloadWithAFaultKeepsWhatIsInForce(t *testing.T) {
	t.Parallel()
	good := quiet + trusts("alice", alice)
	n := newNode(t, good)
	n.hear(alice, "45.1.1.1")
	n.eventually("it is enforced", func() bool { return n.drops("45.1.1.1") })
	for name, bad := range map[string]string{
		"a rule that names nobody":  strings.Replace(good, "subscribe = true", "subscribe = true\nban = \"any of bob\"", 1),
		"an unknown key":            good + "nonsense = 1\n",
		"half a file":               good[:len(good)-9],
		"a pack that is not there":  good + "[packs.x]\noperator = \"" + alice.String() + "\"\n",
		"a topic that is none":      good + "[topics.nonsense]\ndetect = true\n",
		"another network":           "network = \"other\"\n" + good,
		"a never-ban entry of junk": "[[never_ban]]\ntarget = \"x\"\n" + good,
	} {
		n.configure(bad)
		if err := n.client.Post(t.Context(), "/v1/reload", struct{}{}, nil); err == nil {
			t.Errorf("%s was taken over", name)
		}
		if !n.drops("45.1.1.1") || len(n.a.current().Peers()) != 1 {
			t.Errorf("%s changed what is in force", name)
		}
	}
	n.configure(good)
	n.post("/v1/reload", struct{}{}, nil)
}

func TestAnOperatorThatVanishesFromTheConfigurationLosesItsBans(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, "45.1.1.1")
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.2"), Topic: "sshd"}, nil)
	n.eventually("both are enforced", func() bool { return n.drops("45.1.1.1") && n.drops("45.1.1.2") })
	n.configure(quiet + "subscribe = true\n")
	n.post("/v1/reload", struct{}{}, nil)
	n.eventually("the operator's ban is lifted", func() bool { return !n.drops("45.1.1.1") })
	if !n.drops("45.1.1.2") {
		t.Error("the node's own ban went with it")
	}
}

func TestWhatBecomesVitalIsFreedAndCannotBeBannedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, "45.1.1.1", "45.1.1.3")
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.2"), Topic: "sshd"}, nil)
	n.eventually("all are enforced", func() bool { return n.drops("45.1.1.1") && n.drops("45.1.1.2") && n.drops("45.1.1.3") })
	n.mu.Lock()
	n.network = neverban.Network{
		Gateways:  []neverban.Gateway{{Addr: netip.MustParseAddr("45.1.1.1"), Interface: "eth0", Default: true}},
		Addresses: []neverban.Address{{Prefix: netip.MustParsePrefix("45.1.1.2/24"), Interface: "eth0"}},
	}
	n.mu.Unlock()
	if err := n.a.guard.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The kernel's first rule at once, the bans with the next change.
	if n.drops("45.1.1.1") || n.drops("45.1.1.2") || !n.drops("45.1.1.3") {
		t.Error("the firewall was not told")
	}
	n.eventually("their bans are gone", func() bool {
		return !slices.ContainsFunc(n.fake.Bans(), func(b firewall.Ban) bool { return b.Prefix.Addr() != netip.MustParseAddr("45.1.1.3") })
	})
	var refused *control.RefusedError
	if err := n.client.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.0.0/16"), Topic: "sshd"}, nil); !errors.As(err, &refused) || refused.Code != control.CodeRefused {
		t.Errorf("a prefix around the gateway: %v", err)
	}
	var peers []struct {
		Name    string `json:"name"`
		Strikes int    `json:"strikes"`
	}
	n.hear(alice, "45.1.1.0/30")
	if err := n.client.Get(t.Context(), "/v1/peers", nil, &peers); err != nil || len(peers) != 1 || peers[0].Strikes != 1 {
		t.Errorf("peers: %+v, %v", peers, err)
	}
}

func TestASharedAddressIsWatchedAndNotBannedForPeers(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, "104.16.1.1", "45.1.1.1")
	n.eventually("the other one is enforced", func() bool { return n.drops("45.1.1.1") })
	if x := n.explain("104.16.1.1"); n.drops("104.16.1.1") || x.Standings[0].Action != policy.Watch.String() || x.Standings[0].Why != policy.ReasonCaution.String() {
		t.Errorf("explain says %+v", x)
	}
	// Events here are known here.
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("104.16.1.1"), Topic: "sshd"}, nil)
	n.eventually("the own ban is enforced", func() bool { return n.drops("104.16.1.1") })

	// Without the shipped list.
	n.configure("shared = false\n" + quiet + trusts("alice", alice))
	n.post("/v1/reload", struct{}{}, nil)
	n.hear(alice, "104.16.1.2")
	n.eventually("a peer's ban is enforced", func() bool { return n.drops("104.16.1.2") })
}

func TestAllowIsRetroactiveAndEnds(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, "45.1.1.1")
	n.eventually("it is enforced", func() bool { return n.drops("45.1.1.1") })
	var answer control.UnbanAnswer
	n.post("/v1/allow", control.AllowRequest{Target: ban.MustTarget("45.1.0.0/16"), For: 1 << 62, Comment: "the office"}, &answer)
	if len(answer.Lifted) != 1 || answer.Exempt.Before(time.Now()) {
		t.Errorf("the answer is %+v", answer)
	}
	n.eventually("it is lifted", func() bool { return !n.drops("45.1.1.1") })
	n.post("/v1/allow/remove", control.AllowRequest{Target: ban.MustTarget("45.1.0.0/16")}, nil)
	n.eventually("the peer's claim counts again", func() bool { return n.drops("45.1.1.1") })
	n.post("/v1/peers/undo", control.PeerRequest{Peer: "alice", Why: "wrong"}, nil)
	n.eventually("nothing of the peer is left", func() bool { return !n.drops("45.1.1.1") })
	n.restart()
	n.hear(alice, "45.1.1.1", "45.1.1.2")
	if n.drops("45.1.1.1") || n.drops("45.1.1.2") {
		t.Error("an undone peer counts after a restart")
	}
}

func TestWrongRequestsAreRefusedWithTheirReason(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	for name, c := range map[string]struct {
		path string
		body any
		code string
	}{
		"no target":                {"/v1/bans", control.BanRequest{Topic: "sshd"}, control.CodeBad},
		"a topic that is none":     {"/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "nonsense"}, control.CodeMissing},
		"a wallet for sshd":        {"/v1/bans", control.BanRequest{Target: ban.MustTarget("0x52908400098527886E0F7030069857D2E4169EE7"), Topic: "sshd"}, control.CodeRefused},
		"loopback":                 {"/v1/bans", control.BanRequest{Target: ban.MustTarget("127.0.0.1"), Topic: "sshd"}, control.CodeRefused},
		"the whole Internet":       {"/v1/bans", control.BanRequest{Target: ban.MustTarget("0.0.0.0/0"), Topic: "sshd"}, control.CodeRefused},
		"not JSON":                 {"/v1/bans", "hello", control.CodeBad},
		"a field that is none":     {"/v1/bans", map[string]any{"target": "45.1.1.1", "topic": "sshd", "tpoic": 1}, control.CodeBad},
		"an unban of nothing":      {"/v1/unban", control.UnbanRequest{}, control.CodeBad},
		"an unban in no topic":     {"/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "nonsense"}, control.CodeMissing},
		"allowing nothing":         {"/v1/allow", control.AllowRequest{}, control.CodeBad},
		"ending what is not there": {"/v1/allow/remove", control.AllowRequest{Target: ban.MustTarget("45.1.1.1")}, control.CodeMissing},
		"undoing nobody":           {"/v1/peers/undo", control.PeerRequest{Peer: "nobody"}, control.CodeMissing},
		"approving nobody":         {"/v1/hold/approve", control.PeerRequest{Peer: "nobody"}, control.CodeMissing},
		"releasing who is free":    {"/v1/peers/release", control.PeerRequest{Peer: alice.String()}, control.CodeMissing},
	} {
		err := n.client.Post(t.Context(), c.path, c.body, nil)
		var refused *control.RefusedError
		if !errors.As(err, &refused) || refused.Code != c.code || refused.Text == "" {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if len(n.fake.Bans()) != 0 {
		t.Errorf("something was banned: %v", n.fake.Bans())
	}
}

func TestAFloodWaitsForAPerson(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+"watch = \"any of alice\"\nban = \"any of alice\"\n"+trusts("alice", alice)+"[topics.sshd.limits]\nper_hour = 2\n")
	n.hear(alice, "45.1.1.1", "45.1.1.2", "45.1.1.3", "45.1.1.4")
	n.eventually("the first two are enforced", func() bool { return n.drops("45.1.1.1") && n.drops("45.1.1.2") })
	var holds []ledger.Hold
	if err := n.client.Get(t.Context(), "/v1/hold", nil, &holds); err != nil || len(holds) != 1 || holds[0].Name != "alice" || holds[0].Claims != 2 || holds[0].Why != control.HoldGuard {
		t.Fatalf("what waits: %+v, %v", holds, err)
	}
	if x := n.explain("45.1.1.3"); n.drops("45.1.1.3") || x.Standings[0].Action != policy.Watch.String() {
		t.Errorf("what waits is not watched: %+v", x)
	}
	n.restart()
	n.hear(alice, "45.1.1.1", "45.1.1.2", "45.1.1.3", "45.1.1.4")
	if n.drops("45.1.1.4") {
		t.Error("after a restart it does not wait")
	}
	var count control.CountAnswer
	n.post("/v1/hold/approve", control.PeerRequest{Peer: "alice", Topic: "sshd"}, &count)
	n.eventually("what was approved is enforced", func() bool { return n.drops("45.1.1.3") && n.drops("45.1.1.4") })
	n.hear(alice, "45.1.1.5", "45.1.1.6", "45.1.1.7")
	n.post("/v1/hold/reject", control.PeerRequest{Peer: alice.String()}, &count)
	n.hear(alice, "45.1.1.7")
	if n.drops("45.1.1.7") {
		t.Error("what was rejected is enforced")
	}
}

// One node's person says that a ban is wrong; another node that listens lifts
// it, over the real protocol.
func TestADisputeLiftsTheBanWhereItIsListenedTo(t *testing.T) {
	t.Parallel()
	a := newNode(t, quiet+"publish = true\n")
	b := newNode(t, fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\nsubscribe = true\nban = \"any of carol\"\nwatch = \"never\"\ndispute = \"any of anna\"\n[operators.anna]\nid = %q\n[operators.carol]\nid = %q\n",
		a.a.sharing.broker.Addr(), a.a.sharing.identity.Operator(), alice))
	b.hear(alice, "45.1.1.1", "45.1.1.2")
	b.eventually("both are enforced", func() bool { return b.drops("45.1.1.1") && b.drops("45.1.1.2") })
	a.post("/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", Dispute: true}, nil)
	b.eventually("the disputed ban is lifted", func() bool { return !b.drops("45.1.1.1") })
	if x := b.explain("45.1.1.1"); x.Standings[0].Why != policy.ReasonDisputed.String() || !b.drops("45.1.1.2") {
		t.Errorf("explain says %+v", x)
	}
	a.post("/v1/allow/remove", control.AllowRequest{Target: ban.MustTarget("45.1.1.1")}, nil)
	b.eventually("the ban is back", func() bool { return b.drops("45.1.1.1") })
}

func TestASilentNameServerKeepsABrokersAddresses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	var answer []netip.Addr
	var fault error
	asked := 0
	n := names{now: func() time.Time { return now }, lookUp: func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return answer, fault
	}}
	want := func(what string, asks int, addrs ...netip.Addr) {
		t.Helper()
		got, err := n.resolve(t.Context(), "broker")
		if !slices.Equal(got, addrs) || asked != asks || (err != nil) != (fault != nil) && asks == asked {
			t.Errorf("%s: %v, %v after %d questions, want %v after %d", what, got, err, asked, addrs, asks)
		}
	}
	one, two := netip.MustParseAddr("45.1.1.1"), netip.MustParseAddr("45.1.1.2")
	answer = []netip.Addr{two, one}
	want("first", 1, one, two)
	want("at once again", 1, one, two)
	now = now.Add(nameKept)
	answer, fault = nil, errors.New("no name server answers")
	want("the name server is silent", 2, one, two)
	want("it is not asked at once again", 2, one, two)
	now = now.Add(nameAgain)
	answer, fault = []netip.Addr{two}, nil
	want("it answers", 3, two)
}
