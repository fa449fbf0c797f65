package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// asks says whether an error is a question, and its text.
func asks(err error) (string, bool) {
	r, ok := errors.AsType[*control.RefusedError](err)
	if !ok || r.Code != control.CodeAsk {
		return "", false
	}
	return r.Text, true
}

// crowd is n addresses.
func crowd(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("45.2.0.%d", i+1))
	}
	return list
}

func (n *node) enforces(want int) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%d bans are enforced", want), func() bool { return len(n.fake.Bans()) == want })
}

func TestAReloadThatLiftsMoreThanAHandfulWaitsForYes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ bans, handful int }{{5, 5}, {6, 0}} {
		n := newNode(t, quiet+trusts("alice", alice))
		n.hear(alice, crowd(c.bans)...)
		n.enforces(c.bans)
		n.configure(quiet + "subscribe = true\n")
		// To ask changes nothing.
		var e control.Effect
		n.post("/v1/reload", control.ReloadRequest{Dry: true}, &e)
		if e.End != c.bans || e.Begin != 0 || len(e.Ends) != c.bans || len(e.Rules) != 1 || e.Rules[0].Before.Ban != "any of alice" || e.Rules[0].After.Ban != "" {
			t.Errorf("%d bans: the effect is %+v", c.bans, e)
		}
		n.enforces(c.bans)
		err := n.client.Post(t.Context(), "/v1/reload", control.ReloadRequest{}, &e)
		if c.handful == c.bans {
			if err != nil {
				t.Errorf("a handful: %v", err)
			}
			n.enforces(0)
			continue
		}
		if text, ok := asks(err); !ok || !strings.Contains(text, "ends 6 bans") {
			t.Errorf("beyond a handful: %v", err)
		}
		n.enforces(6)
		var s control.Status
		if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil || !slices.ContainsFunc(s.Warnings, func(w control.Warning) bool {
			return w.Code == "configuration" && w.Fix == "agent reload --yes" && strings.Contains(w.Text, "ends 6 bans")
		}) {
			t.Errorf("nobody is told that it waits: %+v, %v", s.Warnings, err)
		}
		n.post("/v1/reload", control.ReloadRequest{Yes: true}, &e)
		n.enforces(0)
	}
}

func TestTheBansThatATopicWouldBringAreCountedBefore(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+"[operators.alice]\nid = \""+alice.String()+"\"\n")
	n.hear(alice, crowd(3)...)
	n.configure(quiet + trusts("alice", alice))
	var e control.Effect
	n.post("/v1/reload", control.ReloadRequest{Dry: true}, &e)
	if e.Begin != 3 || e.End != 0 || len(e.Rules) != 1 || e.Rules[0].Before.Accept || !e.Rules[0].After.Accept {
		t.Errorf("%+v", e)
	}
	n.enforces(0)
	n.post("/v1/reload", control.ReloadRequest{}, &e)
	n.enforces(3)
}

func TestASignalWaitsForYesToo(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, crowd(6)...)
	n.enforces(6)
	n.configure(quiet)
	n.signals <- syscall.SIGHUP
	n.eventually("the status says that it waits", func() bool {
		var s control.Status
		err := n.client.Get(t.Context(), "/v1/status", nil, &s)
		return err == nil && slices.ContainsFunc(s.Warnings, func(w control.Warning) bool { return w.Code == "configuration" && w.Fix == "agent reload --yes" })
	})
	n.enforces(6)
	n.post("/v1/reload", control.ReloadRequest{Yes: true}, nil)
	n.enforces(0)
}

func TestNewNeverBanEntriesCountAmongTheBansThatEnd(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, crowd(7)...)
	n.enforces(7)
	n.configure(quiet + trusts("alice", alice) + "[[never_ban]]\ntarget = \"45.2.0.0/24\"\n")
	if text, ok := asks(n.client.Post(t.Context(), "/v1/reload", control.ReloadRequest{}, nil)); !ok || !strings.Contains(text, "ends 7 bans") {
		t.Errorf("it said %q", text)
	}
	n.enforces(7)
	n.post("/v1/reload", control.ReloadRequest{Yes: true}, nil)
	n.enforces(0)
}

func TestTheEffectOfARuleIsToldBeforeItIsWritten(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice)+"[operators.bob]\nid = \""+ban.OperatorOf([]byte("bob")).String()+"\"\n")
	n.hear(alice, crowd(3)...)
	n.enforces(3)
	var e control.Effect
	n.post("/v1/effect", control.RulesRequest{Topic: "sshd", Rules: control.Rules{Ban: "2 of alice, bob"}}, &e)
	if e.End != 3 || len(e.Rules) != 1 || e.Rules[0].After.Ban != "2 of alice, bob" {
		t.Errorf("%+v", e)
	}
	n.enforces(3)
	if err := n.client.Post(t.Context(), "/v1/effect", control.RulesRequest{Topic: "sshd", Rules: control.Rules{Ban: "any of carol"}}, &e); err == nil || !strings.Contains(err.Error(), "carol") {
		t.Errorf("a rule that names nobody: %v", err)
	}
	if err := n.client.Post(t.Context(), "/v1/effect", control.RulesRequest{Topic: "nonsense"}, &e); err == nil {
		t.Error("a topic that is none has an effect")
	}
}

func TestUndoAndAllowAskBeforeTheyLiftMoreThanAHandful(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+trusts("alice", alice))
	n.hear(alice, crowd(9)...)
	n.enforces(9)
	if text, ok := asks(n.client.Post(t.Context(), "/v1/allow", control.AllowRequest{Target: ban.MustTarget("45.2.0.0/24")}, nil)); !ok || text != "this lifts 9 bans" {
		t.Errorf("allow said %q", text)
	}
	if text, ok := asks(n.client.Post(t.Context(), "/v1/peers/undo", control.PeerRequest{Peer: "alice"}, nil)); !ok || text != "this lifts 9 bans that rest on alice" {
		t.Errorf("undo said %q", text)
	}
	if text, ok := asks(n.client.Post(t.Context(), "/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.2.0.0/24")}, nil)); !ok || text != "this lifts 9 bans" {
		t.Errorf("unban said %q", text)
	}
	n.enforces(9)
	var count control.CountAnswer
	n.post("/v1/peers/undo", control.PeerRequest{Peer: "alice", Yes: true}, &count)
	n.enforces(0)
	if count.Count != 9 {
		t.Errorf("undo lifted %d", count.Count)
	}
	n.post("/v1/peers/release", control.PeerRequest{Peer: "alice"}, nil)
	n.enforces(9)
	n.post("/v1/allow", control.AllowRequest{Target: ban.MustTarget("45.2.0.0/24"), Yes: true}, nil)
	n.enforces(0)
}
