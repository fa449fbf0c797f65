package federation

import (
	"strings"
	"testing"
)

// TestAListIsShownBesideTheDenialsItIsAbout has alice deny a wallet, say why, and
// publish it; bob believes her and mallory's list names the same wallet.
func TestAListIsShownBesideTheDenialsItIsAbout(t *testing.T) {
	t.Parallel()
	const wallet, topic = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "gateway-payment"
	b := mosquitto(t)
	alice, bob, mallory := newNode(t, "alice", b.url()), newNode(t, "bob", b.url()), newNode(t, "mallory", b.url())
	base := "[topics.sshd]\ndetect = false\n[topics." + topic + "]\n"
	alice.configure(base + "publish = true\n")
	mallory.configure(base + "publish = false\n")
	bob.configure("[gate]\nenabled = true\nlisten = \"127.0.0.1:1\"\nfile = \"" + bob.path("gate/wallets") + "\"\n" +
		base + "subscribe = true\nban = \"any of alice\"\nwatch = \"any of mallory\"\n" + trusts(alice, mallory))
	for _, n := range []*node{alice, bob, mallory} {
		n.start()
	}
	for n, contact := range map[*node]string{alice: "appeals@example.org", mallory: "pay@example.net"} {
		n.do("denylist", "add", wallet, "--topic", topic, "--reason", "payment", "--note", "tickets without funds", "--evidence", "https://example.org/case/7")
		n.do("denylist", "describe", "--topic", topic, "--list", "Unpaid work of "+n.name, "--contact", contact)
		n.do("denylist", "publish", "--topic", topic)
	}
	const line = `alice's list "Unpaid work of alice": tickets without funds https://example.org/case/7; to object: appeals@example.org`
	listed := func() string { return bob.do("denylist", "list", "--topic", topic) }
	eventually(t, "bob sees why", func() bool { return strings.Contains(listed(), wallet+": "+line) })
	if out := listed(); strings.Contains(out, "example.net") {
		t.Errorf("a list is shown whose operator does not deny the wallet:\n%s", out)
	}
	if out := strings.Join(strings.Fields(bob.do("explain", wallet)), " "); !strings.Contains(out, line) || strings.Contains(out, "example.net") {
		t.Errorf("the explanation lacks the list, or has mallory's:\n%s", out)
	}
	contact := func(s string) func() bool {
		return func() bool { return strings.Contains(mustRead(t, bob.path("gate/wallets")), s) }
	}
	eventually(t, "bob's gate tells the denied where to object", contact("appeals@example.org"))
	if contact("example.net")() {
		t.Error("the denied are told a stranger's contact")
	}
	// A changed list is published anew by itself, and a withdrawn list is gone.
	alice.do("denylist", "describe", "--topic", topic, "--contact", "other@example.org")
	eventually(t, "the gate has the new contact", contact("other@example.org"))
	alice.do("denylist", "publish", "--topic", topic, "--none")
	eventually(t, "the list is withdrawn", func() bool { return !strings.Contains(listed(), "tickets without funds") })
	if !strings.Contains(listed(), wallet) {
		t.Error("the wallet is admitted because its list was withdrawn")
	}
}
