package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
)

// Each kind of event says who did it, why and, where it was found in a log, the line;
// a kind without a row here is a fault.
func TestEveryKindOfEventSaysWhoAndWhy(t *testing.T) {
	t.Parallel()
	log := newLog(t)
	n := &node{t: t, dir: t.TempDir()}
	config := detecting("sshd", log, "corroborate = \"off\"\nwatch = \"any of alice\"\nban = \"any of bob\"\n[topics.sshd.limits]\nper_hour = 2\n")
	bob := ban.OperatorOf([]byte("bob"))
	n.configure(strings.Replace(config, "watch = ", "subscribe = true\nwatch = ", 1) +
		"[operators.alice]\nid = \"" + alice.String() + "\"\n[operators.bob]\nid = \"" + bob.String() + "\"\n")
	n.start()
	target := ban.MustTarget
	offends := func(address string, times int) {
		for range times {
			log.says("web sshd[7]: Failed password for root from %s port 5001 ssh2", address)
		}
	}
	// wait gives the newest event of a kind about a target.
	wait := func(kind history.Kind, about string) (e control.Event) {
		t.Helper()
		n.eventually(string(kind)+" of "+about, func() bool {
			q := map[string][]string{"kind": {string(kind)}}
			if about != "" {
				q["target"] = []string{about}
			}
			var page control.EventPage
			if err := n.client.Get(t.Context(), "/v1/history", q, &page); err != nil {
				t.Fatal(err)
			}
			if len(page.Events) > 0 {
				e = page.Events[0]
			}
			return len(page.Events) > 0
		})
		return e
	}

	type row struct {
		by, peer, why string
		count         int
		found         bool // it has a log's line, its name, the client's port and the first time
		until         bool
	}
	got := map[history.Kind]control.Event{}
	want := map[history.Kind]row{
		history.Ban:        {by: "detection", why: "this node banned it", count: 5, found: true, until: true},
		history.Extend:     {by: "a person", why: "this node banned it", until: true},
		history.End:        {why: "the claim was withdrawn", until: true},
		history.WatchHit:   {by: "detection", peer: "alice", why: "peers warned of it", count: 1, found: true},
		history.Refuse:     {by: "detection", why: "a person", count: 5, found: true},
		history.Shield:     {by: "never-ban", why: "loopback", count: 1},
		history.Hold:       {by: "bob", peer: "bob", why: "more"},
		history.Strike:     {by: "bob", peer: "bob", why: "loopback"},
		history.Quarantine: {by: "a person", peer: "bob", why: "it told nonsense"},
		history.Withdraw:   {by: "alice", peer: "alice", why: "its author withdrew the claim as a mistake"},
		history.Unban:      {by: "a person", why: "a customer", until: true},
		history.Allow:      {by: "a person", why: "the office"},
		history.Dispute:    {by: "alice", peer: "alice", why: "says that it should not be banned", until: true},
		history.Peer:       {by: "a person", peer: "bob", why: "no longer named in the rules"},
		history.Config:     {by: "a reload", why: "files taken over"},
		history.Start:      {by: "this node", why: "began"},
		history.Stop:       {why: "the agent ended in order"},
		history.Lost:       {by: "this node", why: "events came faster", count: 7},
	}

	n.hear(alice, "45.1.1.1", "45.1.1.2")
	offends("45.1.1.1", 1)
	got[history.WatchHit] = wait(history.WatchHit, "45.1.1.1")
	offends("45.1.1.3", 5)
	got[history.Ban] = wait(history.Ban, "45.1.1.3")
	offends("127.0.0.1", 1)
	got[history.Shield] = wait(history.Shield, "127.0.0.1")
	feed := ban.Feed{Topic: "sshd", Operator: alice, Node: ban.NodeOf([]byte("node"))}
	if err := n.a.ledger.Peers.Dispute(feed, []ledger.Dispute{{Target: target("45.1.1.3"), End: time.Now().Add(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	got[history.Dispute] = wait(history.Dispute, "45.1.1.3")
	if err := n.a.ledger.Peers.Apply(ban.Change{Feed: feed, Withdrawn: ban.Withdraw(ban.ReasonMistake, target("45.1.1.2"))}); err != nil {
		t.Fatal(err)
	}
	got[history.Withdraw] = wait(history.Withdraw, "45.1.1.2")

	n.hear(bob, "127.0.0.1", "45.1.2.1", "45.1.2.2", "45.1.2.3", "45.1.2.4")
	got[history.Strike], got[history.Hold] = wait(history.Strike, "127.0.0.1"), wait(history.Hold, "")
	n.post("/v1/peers/undo", control.PeerRequest{Peer: "bob", Why: "it told nonsense", Yes: true}, nil)
	got[history.Quarantine] = wait(history.Quarantine, "")

	n.post("/v1/bans", control.BanRequest{Target: target("45.1.3.1"), Topic: "sshd", For: 3600}, nil)
	wait(history.Ban, "45.1.3.1")
	n.post("/v1/bans", control.BanRequest{Target: target("45.1.3.1"), Topic: "sshd", For: 7200}, nil)
	got[history.Extend] = wait(history.Extend, "45.1.3.1")
	n.post("/v1/unban", control.UnbanRequest{Target: target("45.1.3.1"), Comment: "a customer"}, nil)
	got[history.Unban], got[history.End] = wait(history.Unban, "45.1.3.1"), wait(history.End, "45.1.3.1")
	offends("45.1.3.1", 5)
	got[history.Refuse] = wait(history.Refuse, "45.1.3.1")
	n.post("/v1/allow", control.AllowRequest{Target: target("198.51.100.4"), Comment: "the office"}, nil)
	got[history.Allow] = wait(history.Allow, "198.51.100.4")

	n.configure(strings.Replace(config, "any of bob", "never", 1) + "[operators.alice]\nid = \"" + alice.String() + "\"\n")
	n.post("/v1/reload", struct{}{}, nil)
	got[history.Peer], got[history.Config] = wait(history.Peer, ""), wait(history.Config, "")
	n.a.chronicle.mu.Lock()
	n.a.chronicle.lost = 7
	n.a.chronicle.mu.Unlock()
	n.a.chronicle.Add(history.Event{Kind: history.Config, By: "a reload"})
	got[history.Lost] = wait(history.Lost, "")
	n.restart()
	got[history.Start], got[history.Stop] = wait(history.Start, ""), wait(history.Stop, "")

	for _, k := range history.Kinds() {
		w, ok := want[k]
		e := got[k]
		switch {
		case !ok:
			t.Errorf("%s: no row", k)
		case e.By != w.by || !strings.Contains(strings.ToLower(e.Why), strings.ToLower(w.why)) || w.peer != "" && !slices.Contains(e.Peers, w.peer):
			t.Errorf("%s: by %q of %v because %q, want %+v", k, e.By, e.Peers, e.Why, w)
		case w.count != 0 && e.Count != w.count || e.Until.IsZero() == w.until || e.At.IsZero():
			t.Errorf("%s: %+v, want %+v", k, e, w)
		case w.found && (e.Port != 5001 || e.First.IsZero() || e.Source != log.path || !strings.Contains(e.Sample, "Failed password")):
			t.Errorf("%s: without its evidence: %+v", k, e)
		}
	}
}
