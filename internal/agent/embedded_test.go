package agent

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/store"
)

func (n *node) broker() (address string, connected bool) {
	n.t.Helper()
	var s control.Status
	if err := n.client.Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		n.t.Fatal(err)
	}
	return s.Broker, len(s.Brokers) > 0 && s.Brokers[0].Connected
}

// Without a configuration nobody on this machine can reach a broker of ours:
// there is none, and later only a socket that this node's user may open.
func TestThereIsNoEmbeddedBrokerBeforeSomethingIsShared(t *testing.T) {
	t.Parallel()
	n := newNode(t, "[topics.sshd]\ndetect = false\n")
	if address, _ := n.broker(); address != "" {
		t.Errorf("a broker listens on %s", address)
	}
	if _, err := os.Stat(EmbeddedSocket(filepath.Join(n.dir, "state"))); !os.IsNotExist(err) {
		t.Errorf("its socket: %v", err)
	}
	n.configure("[topics.sshd]\ndetect = false\npublish = true\n")
	n.restart()
	socket := EmbeddedSocket(filepath.Join(n.dir, "state"))
	if address, _ := n.broker(); address != socket {
		t.Fatalf("the broker listens on %q, want %q", address, socket)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	n.eventually("the node is connected to itself", func() bool { _, up := n.broker(); return up })
	if c, err := net.Dial("unix", socket); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// A node that begins to share needs no restart for the broker of its own.
func TestTheEmbeddedBrokerBeginsWhenSomethingIsShared(t *testing.T) {
	t.Parallel()
	n := newNode(t, "[topics.sshd]\ndetect = false\n")
	var s control.Status
	if err := n.client.Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Brokers) != 0 {
		t.Errorf("a broker that does not exist is in the status: %+v", s.Brokers)
	}
	for _, w := range s.Warnings {
		t.Errorf("a node that shares nothing warns: %s", w.Text)
	}
	n.configure("[topics.sshd]\ndetect = false\npublish = true\n")
	n.post("/v1/reload", control.ReloadRequest{}, nil)
	n.eventually("the node is connected to itself", func() bool { _, up := n.broker(); return up })
	n.restart()
	n.eventually("the node is connected to itself after a restart", func() bool { _, up := n.broker(); return up })
}

// Another program's fresh keys fill nothing of a broker that is inside the
// agent: it serves those that the configuration names.
func TestTheEmbeddedBrokerAdmitsOnlyWhomTheNodeKnows(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	address, _ := n.broker()
	dir := t.TempDir()
	id, err := keys.Open(filepath.Join(dir, "keys"), "stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := federation.New(federation.Options{
		Network: "banmesh", Identity: id, Store: st, Brokers: []federation.Broker{{URL: "tcp://" + address}},
		Apply: func(_ context.Context, _ ban.Change) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	s.Publish([]ban.Topic{"sshd"})
	refused := func() uint64 { return n.a.sharing.broker.Status().Refused["operator"] }
	n.eventually("the stranger's card is refused", func() bool { return refused() > 0 })
	if m := n.a.sharing.broker.Status().Retained.Messages; m > 1 { // the node's own card
		t.Errorf("%d messages are retained", m)
	}
	n.configure(quiet + "[operators.stranger]\nid = \"" + id.Operator().String() + "\"\n")
	n.post("/v1/reload", nil, nil)
	if err := n.a.sharing.broker.Kick(id.Node().String()); err != nil { // it finds the missing messages when it comes back
		t.Fatal(err)
	}
	n.eventually("it is admitted once it has a name here", func() bool { return len(n.a.sharing.broker.Feeds()) > 1 })
}

// The embedded broker holds a few MiB, of which nobody has all.
func TestTheEmbeddedBrokerHoldsAFewMiB(t *testing.T) {
	t.Parallel()
	l := embeddedLimits(config.EmbeddedBroker{})
	if l.TotalBytes != 8<<20 || l.TotalQueued > 8<<20 || l.OperatorBytes >= l.TotalBytes || l.FeedBytes > l.OperatorBytes {
		t.Errorf("by default it has %+v", l)
	}
	if l := embeddedLimits(config.EmbeddedBroker{MaxBytes: 64 << 20}); l.TotalBytes != 64<<20 || l.OperatorBytes != 56<<20 {
		t.Errorf("with 64 MiB it has %+v", l)
	}
}

// How much it holds is taken over by a restart, which check says.
func TestTheEmbeddedBrokersRoomNeedsARestart(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+"publish = true\n")
	n.eventually("the node is connected to itself", func() bool { _, up := n.broker(); return up })
	n.configure(strings.Replace(quiet, "[topics", "max_bytes = 67108864\n[topics", 1) + "publish = true\n")
	if err := n.client.Post(n.t.Context(), "/v1/reload", control.ReloadRequest{}, nil); err == nil || !strings.Contains(err.Error(), "max_bytes") {
		t.Errorf("a reload says %v", err)
	}
	n.restart()
	n.eventually("the node is connected to itself after a restart", func() bool { _, up := n.broker(); return up })
}
