package agent

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/compat/vallumd"
	"banmesh/internal/control"
	"banmesh/internal/store"
)

// unreached is an entry whose broker does not answer: the messages come from the test.
const unreached = quiet + "[[vallumd]]\nname = \"home\"\nurl = \"tcp://127.0.0.1:1\"\naccept = [\"sshd\"]\nrule = \"ban\"\nlive = 3\nfor = \"1h\"\n"

// receives gives the node messages such as "+198.51.100.7" and "-198.51.100.7".
func (n *node) receives(messages ...string) {
	n.t.Helper()
	var list []vallumd.Message
	for _, w := range messages {
		list = append(list, vallumd.Message{Topic: "sshd", Addr: netip.MustParseAddr(w[1:]), Add: w[0] == '+'})
	}
	if err := n.a.vallumds[0].receive(n.t.Context(), list); err != nil {
		n.t.Fatal(err)
	}
}

// imported gives the addresses that count by the claim of a broker.
func (n *node) imported() string {
	var list []string
	for _, c := range n.a.ledger.Peers.Imported("vallumd:home", "sshd") {
		list = append(list, c.Target.String())
	}
	return strings.Join(list, " ")
}

func TestMessagesOfABrokerStayWithinTheirBudget(t *testing.T) {
	t.Parallel()
	n := newNode(t, unreached)
	want := func(when, list string, full int) {
		t.Helper()
		if got := n.imported(); got != list {
			t.Errorf("%s: %q, want %q", when, got, list)
		}
		if got := n.a.vallumdStatus()[0].Full; got != full {
			t.Errorf("%s: %d beyond the budget, want %d", when, got, full)
		}
	}
	n.receives("+198.51.100.1", "+198.51.100.2", "+198.51.100.3", "+198.51.100.1")
	want("at the limit", "198.51.100.1 198.51.100.2 198.51.100.3", 0)
	n.receives("+198.51.100.4")
	want("beyond it", "198.51.100.1 198.51.100.2 198.51.100.3", 1)
	n.restart()
	want("after a restart", "198.51.100.1 198.51.100.2 198.51.100.3", 0)
	n.receives("+198.51.100.4", "-198.51.100.2", "-198.51.100.9")
	n.receives("+198.51.100.4")
	want("with room again", "198.51.100.1 198.51.100.3 198.51.100.4", 1)
	n.receives("-198.51.100.1", "+198.51.100.1", "-198.51.100.3", "+198.51.100.3", "-198.51.100.3")
	want("in the order of the messages", "198.51.100.1 198.51.100.4", 1)
	n.restart()
	want("after another restart", "198.51.100.1 198.51.100.4", 0)
	n.eventually("the firewall has the ledger's", func() bool { return n.drops("198.51.100.1") && !n.drops("198.51.100.3") })
	w := httptest.NewRecorder()
	local, err := n.a.api.Local()
	if err != nil {
		t.Fatal(err)
	}
	local.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{`banmesh_vallumd_up{broker="vallumd:home"} 0`, `banmesh_vallumd_messages_beyond_budget_total{broker="vallumd:home"} 0`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if told := n.a.ledger.Own.Claims("sshd"); len(told) != 0 {
		t.Errorf("published: %+v", told)
	}
}

func TestABrokersClaimIsNoneOfANeverBannedAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t, "never_ban = [{target = \"198.51.100.1\"}]\n"+unreached)
	n.receives("+198.51.100.1", "+198.51.100.2")
	n.eventually("the other one is dropped", func() bool { return n.drops("198.51.100.2") })
	if n.drops("198.51.100.1") {
		t.Error("a never-banned address is dropped")
	}
	n.post("/v1/unban", control.UnbanRequest{Targets: []ban.Target{ban.MustTarget("198.51.100.2")}}, nil)
	n.receives("-198.51.100.2", "+198.51.100.2")
	if n.drops("198.51.100.2") {
		t.Error("a broker's word beats a person's")
	}
}

func TestADamagedStateOfABrokerIsToldAndEndsNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t, unreached)
	n.receives("+198.51.100.1")
	n.stop()
	s, err := store.Open(filepath.Join(n.dir, "state", storeFile))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(func(tx store.Tx) error { return tx.Put(vallumdBucket, "home/claims/sshd/198.51.100.1", []byte("soon")) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	n.start()
	if got := fmt.Sprint(n.a.warnVallumds()); !strings.Contains(got, "before the start are not known") {
		t.Errorf("warnings: %s", got)
	}
	n.receives("+198.51.100.1")
	if got := n.imported(); got != "198.51.100.1" {
		t.Errorf("imported %q", got)
	}
}
