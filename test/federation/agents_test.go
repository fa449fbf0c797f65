package federation

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/federation"
	"banmesh/internal/keys"
)

const (
	publishing = "[topics.sshd]\ndetect = false\npublish = true\n"
	accepting  = "[topics.sshd]\ndetect = false\nsubscribe = true\n"
)

// TestWhatOthersSayIsNeverPassedOn is the network's freedom from loops: bob
// accepts and publishes the same topic, and carol hears only those that bob himself
// says.
func TestWhatOthersSayIsNeverPassedOn(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob, carol := newNode(t, "alice", b.url()), newNode(t, "bob", b.url()), newNode(t, "carol", b.url())
	alice.configure(publishing + "subscribe = true\nban = \"any of bob\"\n" + trusts(bob))
	bob.configure(publishing + "subscribe = true\nban = \"any of alice\"\n" + trusts(alice))
	carol.configure(accepting + "ban = \"any of bob\"\n" + trusts(bob))
	for _, n := range []*node{alice, bob, carol} {
		n.start()
	}
	alice.bans("203.0.113.1")
	eventually(t, "bob bans what alice does", bob.has("203.0.113.1"))
	bob.bans("203.0.113.2")
	eventually(t, "carol bans what bob does", carol.has("203.0.113.2"))
	eventually(t, "alice bans what bob does", alice.has("203.0.113.1", "203.0.113.2"))
	// Restarts and reloads publish everything again; it is still one claim.
	bob.stop()
	bob.start()
	bob.do("reload")
	bob.bans("203.0.113.3")
	eventually(t, "carol bans that, too", carol.has("203.0.113.2", "203.0.113.3"))
	if f := bob.feed(bob); f.Claims != 2 {
		t.Errorf("bob's feed has %d claims: %+v", f.Claims, f)
	}
}

func TestABrokerThatIsDownLosesNothing(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	b.stop()
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	alice.bans("203.0.113.1")
	eventually(t, "alice says that no broker answers", alice.warns("no-broker"))
	if err := exec.Command(program, "--config-dir", alice.path("config"), "--state-dir", alice.path("state"), "--socket", alice.path("s"), "doctor").Run(); err == nil {
		t.Error("the doctor finds nothing wrong without a broker")
	}
	b.start()
	eventually(t, "the ban of before arrives", bob.has("203.0.113.1"))
	eventually(t, "the warning ends", func() bool { return !alice.warns("no-broker")() })
	b.stop()
	eventually(t, "bob says that no broker answers", bob.warns("no-broker"))
	alice.bans("203.0.113.2")
	if got := bob.banned(); len(got) != 1 {
		t.Errorf("the loss of the broker changed bob's bans: %v", got)
	}
	b.start() // with nothing of its state
	eventually(t, "the ban of meanwhile arrives", bob.has("203.0.113.1", "203.0.113.2"))
}

func TestAnyOfSeveralBrokersIsEnough(t *testing.T) {
	t.Parallel()
	one, two := mosquitto(t), mosquitto(t)
	alice, bob := newNode(t, "alice", one.url(), two.url()), newNode(t, "bob", two.url(), one.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	alice.bans("203.0.113.1")
	eventually(t, "the first ban", bob.has("203.0.113.1"))
	one.stop()
	alice.bans("203.0.113.2")
	eventually(t, "a ban by the second broker", bob.has("203.0.113.1", "203.0.113.2"))
	one.start()
	eventually(t, "the first broker is used again", func() bool {
		a, b := alice.status().Brokers, bob.status().Brokers
		return a[0].Connected && b[1].Connected
	})
	two.stop()
	alice.bans("203.0.113.3")
	eventually(t, "a ban by the first broker", bob.has("203.0.113.1", "203.0.113.2", "203.0.113.3"))
	// Nobody who is on one broker only has heard less.
	carol := newNode(t, "carol", one.url())
	carol.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	carol.start()
	eventually(t, "a late joiner at the first broker", carol.has("203.0.113.1", "203.0.113.2", "203.0.113.3"))
}

// TestAKilledAgentGoesOnWhereItWas kills both sides again and again, in the
// middle of publishing: the numbers go on, and no ban is lost or made twice.
func TestAKilledAgentGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	var want []string
	epoch, batch := uint64(0), uint64(0)
	for round := range 4 {
		for i := range 5 {
			want = append(want, fmt.Sprintf("203.0.113.%d", 100+10*round+i))
			alice.bans(want[len(want)-1])
		}
		if round%2 == 0 {
			bob.kill() // while it takes them over
			bob.start()
		}
		alice.kill() // the last of them not yet published
		alice.start()
		if got := alice.banned(); len(got) != len(want) {
			t.Fatalf("alice has %v after she was killed, want %v", got, want)
		}
		eventually(t, "bob has all of it", bob.has(want...))
		f := alice.feed(alice)
		if epoch != 0 && f.Epoch != epoch || f.Batch < batch {
			t.Errorf("alice went from %d/%d to %d/%d", epoch, batch, f.Epoch, f.Batch)
		}
		epoch, batch = f.Epoch, f.Batch
	}
	// Messages that an old broker serves again are refused, also right after a kill.
	bob.kill()
	b.stop()
	bob.start()
	if got := bob.banned(); len(got) != len(want) {
		t.Errorf("without a broker bob has %v", got)
	}
	if f := bob.feed(alice); f.Epoch != epoch || f.Mismatches != 0 {
		t.Errorf("alice's feed at bob: %+v", f)
	}
}

// TestARestoredBackupIsNoticedAndHealed copies the state away and back, as a
// person does who restores a machine.
func TestARestoredBackupIsNoticedAndHealed(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	alice.bans("203.0.113.1")
	eventually(t, "the first ban", bob.has("203.0.113.1"))
	alice.stop()
	copied := filepath.Join(t.TempDir(), "agent.db")
	copyFile(t, alice.path("state/agent.db"), copied)
	alice.start()
	alice.bans("203.0.113.2")
	eventually(t, "the second ban", bob.has("203.0.113.1", "203.0.113.2"))
	alice.kill()
	copyFile(t, copied, alice.path("state/agent.db"))
	alice.start()
	alice.bans("203.0.113.3")
	eventually(t, "bob has what alice knows", bob.has("203.0.113.1", "203.0.113.3"))
	eventually(t, "alice says so", alice.warns("feed-restarted"))
	// A lost state is healed in the same way.
	alice.kill()
	if err := os.Remove(alice.path("state/agent.db")); err != nil {
		t.Fatal(err)
	}
	alice.start()
	alice.bans("203.0.113.4")
	eventually(t, "bob has what alice knows now", bob.has("203.0.113.4"))
	if s := bob.feed(alice).Status; s != federation.StatusSynced {
		t.Errorf("alice's feed at bob is %s", s)
	}
}

// TestAClonedMachineIsNoticed runs a second machine with alice's keys at a
// broker that alice listens to as well.
func TestAClonedMachineIsNoticed(t *testing.T) {
	t.Parallel()
	one, two := mosquitto(t), mosquitto(t)
	alice := newNode(t, "alice", one.url(), two.url())
	alice.configure(publishing)
	alice.start()
	alice.bans("203.0.113.1")
	clone := newNode(t, "clone", two.url())
	for _, f := range []string{"operator.key", "node.key", "operator.card"} {
		copyFile(t, alice.path("state/"+f), clone.path("state/"+f))
	}
	clone.configure(publishing)
	clone.start()
	// The two push each other off the broker that both use, for they have one
	// name; in between they hear each other. Both have the root key, so who
	// notices makes itself a new node.
	key := func(n *node) string {
		b, err := os.ReadFile(n.path("state/node.key"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	eventually(t, "the two have keys of their own, or one says that they share one", func() bool {
		clone.bans("198.51.100.1")
		alice.bans("198.51.100.2")
		return key(alice) != key(clone) || alice.warns("cloned")() || clone.warns("cloned")()
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAFollowedTrustListIsOneVote has carol and dave on a list of alice's,
// which bob follows.
func TestAFollowedTrustListIsOneVote(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	carol, dave := newNode(t, "carol", b.url()), newNode(t, "dave", b.url())
	alice.configure("[topics.sshd]\ndetect = false\n" + trusts(carol, dave))
	carol.configure(publishing)
	dave.configure(publishing)
	rules := func(ban string) string { return accepting + "ban = \"" + ban + "\"\n" + trusts(alice) }
	bob.configure(rules("never"))
	for _, n := range []*node{alice, bob, carol, dave} {
		n.start()
	}
	bob.do("peers", "follow", "alice")
	bob.configure(rules("any of followed"))
	alice.do("peers", "publish-trust", "carol", "dave")
	carol.bans("203.0.113.1")
	eventually(t, "bob bans what an operator on the list says", bob.has("203.0.113.1"))
	explained := bob.do("explain", "203.0.113.1")
	if !strings.Contains(explained, "carol, by way of alice") {
		t.Errorf("the explanation does not say by whose list:\n%s", explained)
	}
	if out := bob.do("peers", "lists"); !strings.Contains(out, "dave") {
		t.Errorf("the list is not shown:\n%s", out)
	}
	// Two on one list do not make two votes.
	bob.configure(rules("2 of followed, alice"))
	dave.bans("203.0.113.1")
	eventually(t, "bob hears dave, too", func() bool { return bob.feed(dave).Claims == 1 })
	if got := bob.banned(); len(got) != 0 {
		t.Errorf("two votes came of one list: %v", got)
	}
	// The list outlives a restart without a broker, and a shorter one holds at once.
	bob.configure(rules("any of followed"))
	eventually(t, "it is banned again", bob.has("203.0.113.1"))
	b.stop()
	bob.stop()
	bob.start()
	if got := bob.banned(); len(got) != 1 {
		t.Errorf("after a restart without a broker bob has %v", got)
	}
	b.start()
	alice.do("peers", "publish-trust", "--none")
	eventually(t, "nobody on the list counts any more", bob.has())
}

func TestATopicDefinitionIsAdoptedByHand(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, bob := newNode(t, "alice", b.url()), newNode(t, "bob", b.url())
	alice.configure("[topics.sshd]\ndetect = false\n")
	bob.configure("[topics.sshd]\ndetect = false\n" + trusts(alice))
	alice.start()
	bob.start()
	text := "name = \"teamspeak\"\ntitle = \"Who guesses TeamSpeak passwords\"\ntarget = \"ip\"\n\n[enforce]\nall_ports = true\n"
	file := filepath.Join(t.TempDir(), "teamspeak.toml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	alice.do("topics", "publish-definition", file)
	eventually(t, "bob sees it", func() bool { return strings.Contains(bob.do("topics", "published"), "Who guesses TeamSpeak passwords") })
	if strings.Contains(bob.do("topics", "list"), "teamspeak") {
		t.Error("a definition of another applies by itself")
	}
	if out := bob.do("topics", "adopt", "teamspeak", "--from", "alice", "--yes"); !strings.Contains(out, "| name = \"teamspeak\"") {
		t.Errorf("it is not shown before:\n%s", out)
	}
	if !strings.Contains(bob.do("topics", "list"), "teamspeak") {
		t.Error("it was adopted and is not there")
	}
	// A later edition is told and shown, also one that would hide its change, and taken by hand alone.
	later := strings.Replace(text, "title = \"", "title = \"\u202e", 1)
	later = strings.Replace(later, "all_ports = true", strings.Repeat("#\n", 3_000)+"ports = [\"9987\"]", 1)
	if err := os.WriteFile(file, []byte(later), 0o644); err != nil {
		t.Fatal(err)
	}
	alice.do("topics", "publish", file)
	eventually(t, "bob is told of a newer edition", func() bool { return strings.Contains(bob.do("topics", "search", "teamspeak"), "newer edition") })
	diff := bob.do("topics", "diff", "teamspeak", "--from", "alice")
	if !strings.Contains(diff, "+ports = [\"9987\"]\n") || !strings.Contains(diff, "-all_ports = true\n") || strings.Contains(diff, "\u202e") {
		t.Errorf("the difference is not shown as it is:\n%s", diff)
	}
	inUse := func() string {
		b, err := os.ReadFile(filepath.Join(bob.path("config"), "topics.d", "teamspeak.toml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if !strings.Contains(inUse(), "all_ports = true") {
		t.Error("a newer edition was taken by itself")
	}
	if out := bob.do("topics", "install", "teamspeak", "--from", "alice", "--yes"); !strings.Contains(out, "closes     tcp,udp 9987\n") || !strings.Contains(inUse(), "9987") {
		t.Errorf("the newer edition is not in use:\n%s", out)
	}
	alice.do("topics", "publish-definition", "--withdraw", "teamspeak")
	eventually(t, "it is withdrawn", func() bool { return !strings.Contains(bob.do("topics", "published"), "TeamSpeak") })
	if !strings.Contains(bob.do("topics", "list"), "teamspeak") {
		t.Error("what was adopted is a person's own, and is gone")
	}
}

// TestARootKeyElsewhereRevokesANode has an operator with two machines and the
// root key on a third, which has no network.
func TestARootKeyElsewhereRevokesANode(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	one, two, bob := newNode(t, "one", b.url()), newNode(t, "two", b.url()), newNode(t, "bob", b.url())
	office := filepath.Join(t.TempDir(), "office")
	one.do("key", "operator", "new", office, "--name", "alice", "--contact", "mailto:alice@example.org")
	install := func(n *node) {
		t.Helper()
		request := filepath.Join(t.TempDir(), "request")
		if err := os.WriteFile(request, []byte(n.do("key", "node", "request")), 0o644); err != nil {
			t.Fatal(err)
		}
		card := filepath.Join(t.TempDir(), "card")
		if err := os.WriteFile(card, []byte(n.do("key", "node", "certify", request, "--dir", office)), 0o644); err != nil {
			t.Fatal(err)
		}
		n.do("key", "node", "install", card)
	}
	for _, n := range []*node{one, two} {
		if err := os.RemoveAll(n.path("state")); err != nil {
			t.Fatal(err)
		}
		install(n)
		var err error
		if n.id, err = keys.Load(n.path("state")); err != nil {
			t.Fatal(err)
		}
		n.configure(publishing)
		n.start()
	}
	if one.id.Operator() != two.id.Operator() {
		t.Fatal("the two machines are not of one operator")
	}
	one.name = "alice"
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(one))
	bob.start()
	one.bans("203.0.113.1")
	two.bans("203.0.113.2")
	eventually(t, "bob has both", bob.has("203.0.113.1", "203.0.113.2"))
	if out := bob.do("peers", "card", "alice"); !strings.Contains(out, "mailto:alice@example.org") {
		t.Errorf("the card:\n%s", out)
	}
	// Certificates are renewed without anything to do for followers.
	serial := bob.do("peers", "card", "alice")
	install(one)
	eventually(t, "bob hears of the renewal", func() bool { return bob.do("peers", "card", "alice") != serial })
	one.bans("203.0.113.3")
	eventually(t, "and goes on", bob.has("203.0.113.1", "203.0.113.2", "203.0.113.3"))
	// The second machine is stolen: whatever it said in the last hour goes, and
	// its claims from now on.
	two.do("key", "node", "revoke", two.id.Node().String(), "--dir", office, "--since", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	card := filepath.Join(t.TempDir(), "card")
	if err := os.WriteFile(card, []byte(one.do("key", "card", filepath.Join(office, "operator.card"), "--text")), 0o644); err != nil {
		t.Fatal(err)
	}
	one.do("key", "node", "install", card)
	eventually(t, "bob drops it", bob.has("203.0.113.1", "203.0.113.3"))
	two.bans("203.0.113.4")
	one.bans("203.0.113.5")
	eventually(t, "bob believes the first machine only", bob.has("203.0.113.1", "203.0.113.3", "203.0.113.5"))
	eventually(t, "the second machine knows", two.warns("revoked"))
	if s := bob.feed(two).Status; s != federation.StatusRevoked {
		t.Errorf("the second machine's feed is %s", s)
	}
}

// TestASuccessorTakesOver replaces an operator by the one that its card names.
func TestASuccessorTakesOver(t *testing.T) {
	t.Parallel()
	b := mosquitto(t)
	alice, next, bob := newNode(t, "alice", b.url()), newNode(t, "next", b.url()), newNode(t, "bob", b.url())
	alice.configure(publishing)
	next.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n")
	if err := os.WriteFile(bob.path("config/agent.toml"), []byte(strings.Replace(mustRead(t, bob.path("config/agent.toml")), "ban = ", "# ban = ", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	alice.do("key", "operator", "set", "--successor", next.id.Operator().String())
	for _, n := range []*node{alice, next, bob} {
		n.start()
	}
	bob.do("peers", "trust", "alice", alice.id.Operator().String())
	alice.bans("203.0.113.1")
	eventually(t, "alice's ban", bob.has("203.0.113.1"))
	next.bans("203.0.113.2")
	bob.do("peers", "succeed", "alice")
	eventually(t, "the successor's bans, and alice's no more", bob.has("203.0.113.2"))
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
