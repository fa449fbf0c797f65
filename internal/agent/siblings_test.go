package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/policy"
	"banmesh/internal/wire"
)

// siblings makes the keys of two nodes of one operator.
func siblings(t *testing.T) (first, second *node) {
	t.Helper()
	first, second = &node{t: t, dir: t.TempDir()}, &node{t: t, dir: t.TempDir()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func(n *node) string { return filepath.Join(n.dir, "state") }
	_, err := keys.Create(state(first), "us", time.Now())
	must(err)
	request, err := keys.RequestText(state(second), time.Now())
	must(err)
	key, _, err := wire.ParseRequest(request)
	must(err)
	root, err := keys.OpenStore(state(first))
	must(err)
	must(root.Change(time.Now(), func(c *wire.Card) { c.Certify(key, time.Now()) }))
	_, card := root.Card()
	_, err = keys.InstallNodeCard(state(second), []byte(wire.CardText(card)))
	must(err)
	return first, second
}

// A target that a person, or detection, bans on one machine of an operator is banned on
// the others that accept the topic, without a name or a rule; a withdrawal ends
// it there, an unban there stands, and a stranger's claims change nothing.
func TestABanOnOneNodeOfAnOperatorIsOneOnItsOthers(t *testing.T) {
	t.Parallel()
	a, b := siblings(t)
	a.configure(quiet + "publish = true\nsubscribe = true\n")
	a.start()
	b.configure(fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\nsubscribe = true\npublish = true\n", a.a.sharing.broker.Addr()))
	b.start()
	if a.a.sharing.Operator() != b.a.sharing.Operator() || a.a.sharing.Node() == b.a.sharing.Node() {
		t.Fatal("they are no two nodes of one operator")
	}
	month := int64(30 * 24 * 60 * 60)
	for _, x := range []string{"45.1.1.1", "45.1.1.2"} {
		a.post("/v1/bans", control.BanRequest{Target: ban.MustTarget(x), Topic: "sshd", For: month}, nil)
	}
	b.eventually("the other node drops both", func() bool { return b.drops("45.1.1.1") && b.drops("45.1.1.2") })
	x := b.explain("45.1.1.1")
	if len(x.Standings) != 1 || x.Standings[0].Why != policy.ReasonOwnOperator.String() || time.Until(x.Standings[0].Until) < 29*24*time.Hour {
		t.Errorf("explain says %+v", x)
	}
	if c := x.Standings[0].Claims; len(c) != 1 || c[0].Name != "own node "+a.a.sharing.Node().String() {
		t.Errorf("explain names %+v", c)
	}
	var bans []control.Ban
	if err := b.client.Get(t.Context(), "/v1/bans", nil, &bans); err != nil || len(bans) != 2 {
		t.Errorf("bans: %v, %v", bans, err)
	}
	for _, x := range bans {
		if !slices.Equal(x.Origin, []string{"own nodes"}) {
			t.Errorf("the origin of %s is %q", x.Target, x.Origin)
		}
	}
	b.hear(alice, "45.1.1.3")
	if b.drops("45.1.1.3") {
		t.Error("a stranger's claim counts")
	}
	// Nothing comes back: each says its own alone.
	b.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.4"), Topic: "sshd", For: month}, nil)
	a.eventually("the first node drops what the second banned", func() bool { return a.drops("45.1.1.4") })
	if own := b.a.ledger.Own.Claims("sshd"); len(own) != 1 || own[0].Target != ban.MustTarget("45.1.1.4") {
		t.Errorf("the second node says %v", own)
	}
	b.restart()
	b.eventually("after a restart it drops all", func() bool { return b.drops("45.1.1.1") && b.drops("45.1.1.2") && b.drops("45.1.1.4") })
	b.post("/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.1.1.2")}, nil)
	b.eventually("an unban here stands", func() bool { return !b.drops("45.1.1.2") })
	a.post("/v1/withdraw", control.WithdrawRequest{Targets: []ban.Target{ban.MustTarget("45.1.1.1")}, Reason: ban.ReasonMistake}, nil)
	b.eventually("a withdrawal there ends it here", func() bool { return !b.drops("45.1.1.1") })
	if x := b.explain("45.1.1.1"); len(x.Standings) != 1 || x.Standings[0].Why != policy.ReasonMistake.String() {
		t.Errorf("explain says %+v", x)
	}
}

// The broker of one node speaks TLS to the others, who know its certificate by its
// fingerprint alone; a node that knows another fingerprint does not connect.
func TestANodeReachesItsSiblingsBrokerOverTLS(t *testing.T) {
	t.Parallel()
	a, b := siblings(t)
	const topic = "\n[topics.sshd]\ndetect = false\nsubscribe = true\npublish = true\n"
	a.configure("[embedded_broker]\nenabled = true\nlisten = \"127.0.0.1:0\"\ntls = true\n" + topic)
	a.start()
	address := a.a.sharing.Embedded()
	_, fingerprint, err := keys.BrokerCertificate(filepath.Join(a.dir, "state"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b.configure(fmt.Sprintf("[[brokers]]\nurl = \"ssl://%s\"\nfingerprint = \"%064d\"\n", address, 0) + topic)
	b.start()
	b.eventually("the wrong certificate is told", func() bool {
		var s control.Status
		return b.client.Get(t.Context(), "/v1/status", nil, &s) == nil && len(s.Brokers) == 1 && strings.Contains(s.Brokers[0].Error, "has the fingerprint "+fingerprint)
	})
	b.configure(fmt.Sprintf("[[brokers]]\nurl = \"ssl://%s\"\nfingerprint = \"%s\"\n", address, strings.ToUpper(fingerprint)) + topic)
	b.restart()
	var s control.Status
	if err := b.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
		t.Fatal(err)
	}
	for _, x := range s.Topics {
		if x.Topic == "sshd" && x.Policy != "own operator" {
			t.Errorf("status names the rule %q", x.Policy)
		}
	}
	for from, to := range map[*node]*node{a: b, b: a} {
		target := map[*node]string{a: "45.1.1.1", b: "45.1.1.2"}[from]
		from.post("/v1/bans", control.BanRequest{Target: ban.MustTarget(target), Topic: "sshd", For: 3600}, nil)
		to.eventually("the other node drops it", func() bool { return to.drops(target) })
	}
}
