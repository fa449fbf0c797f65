package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
)

// login tells the node of a login that a log line proved.
func (n *node) login(topic ban.Topic, address string, port uint16) {
	n.t.Helper()
	n.a.guests.succeeded(n.t.Context(), detect.Success{Topic: topic, Addr: netip.MustParseAddr(address), Port: port, At: time.Now()})
}

func (n *node) guests() (list []control.Guest) {
	n.t.Helper()
	if err := n.client.Get(n.t.Context(), "/v1/guests", nil, &list); err != nil {
		n.t.Fatal(err)
	}
	return list
}

func TestNoPeerBansAGuestAndAPersonDoes(t *testing.T) {
	t.Parallel()
	n := newNode(t, strings.Replace(quiet+trusts("alice", alice), "subscribe = true", "subscribe = true\nprefix = [\"v4/24\"]", 1))
	n.login("sshd", "45.1.1.1", 0)
	n.hear(alice, "45.1.1.1", "45.1.1.2", "45.1.0.0/24", "45.1.1.0/24")
	n.eventually("the others are enforced", func() bool { return n.drops("45.1.1.2") && n.drops("45.1.0.9") })
	if n.drops("45.1.1.1") || n.drops("45.1.1.3") {
		t.Error("a peer bans a guest, or the network around it")
	}
	x := n.explain("45.1.1.1")
	if x.Guest == "" || len(x.Standings) == 0 || x.Standings[0].Action == control.ActionBan || x.Standings[0].Rule == "" {
		t.Errorf("explain says %+v", x)
	}
	var peers []control.Peer
	if err := n.client.Get(t.Context(), "/v1/peers", nil, &peers); err != nil || len(peers) != 1 || peers[0].Strikes != 0 {
		t.Errorf("a guest's name is a strike: %+v, %v", peers, err)
	}
	n.restart()
	n.hear(alice, "45.1.1.1", "45.1.1.2")
	n.eventually("the other is enforced", func() bool { return n.drops("45.1.1.2") })
	if n.drops("45.1.1.1") || len(n.guests()) != 1 {
		t.Error("a restart forgets the guest")
	}
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
	n.eventually("a person's ban is enforced", func() bool { return n.drops("45.1.1.1") })
}

func TestALoginLiftsPeersBansAndTheEndOfAGuestBringsThemBack(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, "45.1.1.1")
	n.eventually("it is enforced", func() bool { return n.drops("45.1.1.1") })
	n.login("dovecot", "45.1.1.1", 0) // by another door
	n.eventually("it is lifted", func() bool { return !n.drops("45.1.1.1") })
	var count control.CountAnswer
	n.post("/v1/guests/remove", control.GuestRequest{Target: ban.MustTarget("45.1.0.0/16")}, &count)
	n.eventually("it is enforced again", func() bool { return n.drops("45.1.1.1") })
	if count.Count != 1 || len(n.guests()) != 0 {
		t.Errorf("%+v, left %+v", count, n.guests())
	}
	if err := n.client.Post(t.Context(), "/v1/guests/remove", control.GuestRequest{Target: ban.MustTarget("45.1.1.1")}, nil); err == nil {
		t.Error("who is no guest is removed")
	}
}

// From the log line to the kernel: a login shields from peers, not from a
// person and not from one's own doings, which take more.
func TestALoginInTheLogMakesAGuest(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	n := newNode(t, detecting("sshd", log, trusts("alice", alice)))
	n.hear(alice, "45.1.1.1", "45.1.1.2")
	n.eventually("both are enforced", func() bool { return n.drops("45.1.1.1") && n.drops("45.1.1.2") })
	n.connects("sshd", "45.1.1.1:4711", "45.9.9.9:2")
	log.says("web sshd[7]: Accepted publickey for ada from 45.1.1.1 port 4711 ssh2: ED25519 SHA256:abc")
	n.eventually("the guest is free again", func() bool { return !n.drops("45.1.1.1") && n.drops("45.1.1.2") })

	// Nobody's name can carry a login for another address.
	log.says("web sshd[7]: Failed password for invalid user Accepted password for x from 45.1.1.2 port 1 ssh2 from 45.9.9.9 port 2 ssh2")
	n.fails(log, 8, "45.1.1.1")
	n.fails(log, 5, "45.1.1.3")
	n.eventually("the stranger's fifth bans", func() bool { return n.drops("45.1.1.3") })
	if n.drops("45.1.1.1") || len(n.guests()) != 1 {
		t.Errorf("eight failures ban a guest, or there are others: %+v", n.guests())
	}
	n.fails(log, 1, "45.1.1.1")
	n.eventually("the guest's ninth bans", func() bool { return n.drops("45.1.1.1") })
	x := n.explain("45.1.1.1")
	said := false
	for _, c := range x.Standings[0].Claims {
		said = said || c.Evidence != nil && strings.Contains(c.Evidence.By, "though a guest")
	}
	if !said {
		t.Errorf("it does not say so: %+v", x)
	}
}

func TestANodeThatWantsNoGuestsHasNone(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice)+"[guests]\nenabled = false\n")
	n.login("sshd", "45.1.1.1", 0)
	n.hear(alice, "45.1.1.1")
	n.eventually("it is enforced", func() bool { return n.drops("45.1.1.1") })
	if list := n.guests(); len(list) != 0 {
		t.Errorf("guests %+v", list)
	}
}

const orchestrator = quiet + "[topics.livepeer]\ndetect = true\njournal = []\ndocker = []\n"

func TestALoginThatTheKernelSawNoConnectionOfMakesNoGuest(t *testing.T) {
	t.Parallel()
	n := newNode(t, orchestrator)
	n.fake.Peer("livepeer", netip.MustParseAddrPort("45.1.1.2:4711"), 100)
	n.login("livepeer", "45.1.1.1", 4711)
	n.login("livepeer", "45.1.1.2", 4712)
	if list := n.guests(); len(list) != 0 {
		t.Errorf("forged lines made guests: %+v", list)
	}
	n.login("livepeer", "45.1.1.2", 4711)
	if list := n.guests(); len(list) != 1 || list[0].Worked {
		t.Errorf("guests %+v", list)
	}
}

func TestBytesMakeAGuestWhereTheTopicSaysSo(t *testing.T) {
	t.Parallel()
	n := newNode(t, orchestrator+"files = [\"/nonexistent\"]\n")
	for address, bytes := range map[string]uint64{"45.1.1.1:1": 4 << 20, "45.1.1.2:1": 4<<20 - 1} {
		n.fake.Peer("livepeer", netip.MustParseAddrPort(address), bytes)
	}
	for address, want := range map[string]bool{"45.1.1.1": true, "45.1.1.2": false, "45.1.1.3": false} {
		if got := n.a.guests.holds("livepeer", ban.MustTarget(address)); got != want {
			t.Errorf("%s is a guest: %t", address, got)
		}
	}
	if list := n.guests(); len(list) != 1 || !list[0].Worked {
		t.Errorf("guests %+v", list)
	}
}

func TestAPeersBanOfACustomerAtWorkIsNotEnforced(t *testing.T) {
	t.Parallel()
	n := newNode(t, strings.Replace(orchestrator, "detect = true", "detect = true\nsubscribe = true\nban = \"any of alice\"\nrequire = \"hits >= 1\"", 1)+"files = [\"/nonexistent\"]\n[operators.alice]\nid = \""+alice.String()+"\"\n")
	n.fake.Peer("livepeer", netip.MustParseAddrPort("45.1.1.1:1"), 4<<20)
	n.fake.Peer("livepeer", netip.MustParseAddrPort("45.1.1.2:1"), 4<<10)
	n.hearIn("livepeer", alice, "45.1.1.1", "45.1.1.2")
	drops := func(a string) bool { return n.fake.Packet(netip.MustParseAddr(a), "tcp", 8935, 40) }
	n.eventually("the other is enforced", func() bool { return drops("45.1.1.2") })
	n.eventually("the customer is no longer to be banned", func() bool {
		x := n.explain("45.1.1.1")
		return x.Guest != "" && len(x.Standings) == 1 && x.Standings[0].Action == control.ActionIgnore
	})
	if drops("45.1.1.1") {
		t.Error("a customer at work is shut out")
	}
}

// A peer that claims guests of this node, and far more often than the core, is
// quarantined until a person says otherwise; weak claims stay out of it.
func TestAPeerThatClaimsGuestsTooOftenCountsForNothing(t *testing.T) {
	t.Parallel()
	bob := ban.OperatorOf([]byte("bob"))
	n := newNode(t, quiet+trusts("alice", alice)+"[operators.bob]\nid = \""+bob.String()+"\"\n")
	for i := range 5 {
		n.login("sshd", fmt.Sprintf("45.3.0.%d", i+1), 0)
	}
	n.hear(alice, "45.4.0.1", "45.3.0.1")
	n.hear(bob, "45.3.0.1", "45.3.0.2", "45.3.0.3", "45.5.0.1")
	measured := func(name string) control.Peer {
		var list []control.Peer
		if err := n.client.Get(t.Context(), "/v1/peers", nil, &list); err != nil {
			t.Fatal(err)
		}
		return list[slices.IndexFunc(list, func(p control.Peer) bool { return p.Name == name })]
	}
	if x := measured("bob"); x.Measured != 4 || x.Guests != 3 {
		t.Errorf("bob is %+v", x)
	}
	n.a.guests.measure(t.Context())
	if x := measured("bob"); x.Quarantine != nil {
		t.Errorf("three guests quarantine: %+v", x.Quarantine)
	}
	n.hear(bob, "45.3.0.4")
	if n.a.guests.measure(t.Context()); measured("bob").Quarantine != nil {
		t.Error("above the core's rate by less than three times, and yet quarantined")
	}
	n.hear(alice, crowd(20)...)
	n.a.guests.measure(t.Context())
	if x := measured("bob"); x.Quarantine == nil || !strings.Contains(x.Quarantine.Why, "guests") {
		t.Errorf("bob is %+v", x)
	}
	n.eventually("its ban is lifted", func() bool { return !n.drops("45.5.0.1") })
	n.restart()
	if measured("bob").Quarantine == nil {
		t.Error("a restart forgives")
	}
	n.post("/v1/peers/release", control.PeerRequest{Peer: "bob"}, nil)
	n.hear(alice, crowd(20)...)
	n.hear(bob, "45.3.0.1", "45.3.0.2", "45.3.0.3", "45.3.0.4")
	n.a.guests.measure(t.Context())
	if measured("bob").Quarantine != nil {
		t.Error("a person's word does not hold")
	}
}

// The log of an orchestrator names whom a stranger wants it to. Only a line of
// a connection that the kernel saw counts, and of a size that failures have.
func TestALineCountsForTheConnectionThatItIsAbout(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "livepeer.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, orchestrator+"files = [\""+log+"\"]\n")
	for address, bytes := range map[string]uint64{
		"45.1.1.1:1000": 500,                            // a probe
		"45.1.1.2:1000": 50 << 20,                       // a customer
		"45.1.1.3:1000": 50 << 20, "45.1.1.3:1001": 900, // a customer who also probes
	} {
		n.fake.Peer("livepeer", netip.MustParseAddrPort(address), bytes)
	}
	for address, want := range map[string]detect.Proof{
		"45.1.1.1:1000": detect.ProofConfirmed, "45.1.1.1:1001": detect.ProofDenied, "45.1.1.1:0": detect.ProofConfirmed,
		"45.1.1.2:0": detect.ProofDenied, "45.1.1.2:1000": detect.ProofConfirmed, "45.1.1.3:0": detect.ProofConfirmed,
		"45.1.1.4:0": detect.ProofDenied, "45.1.1.4:1000": detect.ProofDenied,
	} {
		if got := n.a.enforcer.corroborated(t.Context(), detect.Question{Topic: "livepeer", From: netip.MustParseAddrPort(address), At: time.Now()}); got != want {
			t.Errorf("%s: %d, want %d", address, got, want)
		}
	}
	// A topic whose peers nobody remembers proves nothing either way.
	if got := n.a.enforcer.corroborated(t.Context(), detect.Question{Topic: "sshd", From: netip.MustParseAddrPort("45.1.1.1:1"), At: time.Now()}); got != detect.ProofUnknown {
		t.Errorf("sshd: %d", got)
	}
}
