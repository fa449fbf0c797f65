package notify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

func TestAFaultIsToldOnceItStaysAndAgainWhenItIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		only, all := *entry(Fault), *entry(Fault, Silent, Ending)
		all.Name, all.Details = "all", true
		n := newNode(t, only, all)
		_, stop := n.runs()
		defer stop()
		set := func(list ...control.Warning) { n.mu.Lock(); n.list = list; n.mu.Unlock() }
		silent := control.Warning{Code: "log-silent", Title: "A log is silent.", Severity: control.SeverityHigh, Text: "/var/log/auth.log of host web7: 12 lines"}
		set(control.Warning{Code: "no-broker", Title: "No broker answers.", Severity: control.SeverityHigh, Text: "broker.example"})
		time.Sleep(100 * time.Second)
		set() // gone before it was told
		time.Sleep(5 * time.Minute)
		if got := n.sent("all") + n.sent("phone"); got != "" {
			t.Errorf("a moment's fault was told: %q", got)
		}
		set(silent)
		time.Sleep(3 * time.Minute)
		silent.Text = "/var/log/auth.log of host web7: 13 lines" // counts on
		set(silent, control.Warning{Code: "log-missing", Title: "It is not there.", Severity: control.SeverityLow}, control.Warning{Code: "peer-held", Severity: control.SeverityLow})
		time.Sleep(10 * time.Minute)
		if a, b := n.sent("all"), n.sent("phone"); a != "silent |, silent |" || b != "fault |" {
			t.Errorf("all was sent %q, phone %q", a, b)
		}
		m := n.took("phone")[0]
		if text := m.Text(); text != "A log is silent.\n  mend: mend log-silent" || !m.Urgent {
			t.Errorf("phone was sent %q", text)
		}
		if text := n.took("all")[0].Text(); !strings.Contains(text, "web7") {
			t.Errorf("with details: %q", text)
		}
		set()
		time.Sleep(10 * time.Minute)
		if a, b := n.sent("all"), n.sent("phone"); a != "silent |, silent |, silent ||" || b != "fault |, fault |" {
			t.Errorf("when it was over all was sent %q, phone %q", a, b)
		}
		if got := n.took("phone")[1]; got.Title != "Banmesh: one fault is over" || got.Text() != "over: A log is silent." {
			t.Errorf("phone was sent %q %q", got.Title, got.Text())
		}
	})
}

func TestTheWeeklyReceiptSaysOfWhichUseThePeersWere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, *entry(Receipt))
		n.peers = []control.Peer{{Name: "alice", Met: 100}, {Name: "list:x", Operator: ban.Operator{1}}, {Name: "bob", Operator: ban.Operator{2}, Met: 5}}
		_, stop := n.runs()
		time.Sleep(time.Hour)
		n.happens(banned("peers"), banned("peers"), banned("detection"), history.Event{Kind: history.Unban, By: "a person"})
		n.mu.Lock()
		n.peers = []control.Peer{{Name: "alice", Met: 400}, {Name: "list:x", Operator: ban.Operator{1}, Overruled: 2, Guests: 1}, {Name: "bob", Operator: ban.Operator{2}, Met: 17}}
		n.mu.Unlock()
		time.Sleep(8 * 24 * time.Hour)
		stop()
		list := n.took("phone")
		if len(list) == 0 {
			t.Fatal("no receipt")
		}
		for _, want := range []string{
			"met 312 attackers before they tried, 0 known guests touched.", "2 bans by the word of peers, 1 of this node's own; a person lifted 1.",
			"Best peer: alice, which named 300 of them first.", "Worst list: x, with 3 false positives", "Peers claim 1 known guest",
		} {
			if !strings.Contains(list[0].Text(), strings.Replace(want, "1 known guest", "1 guest", 1)) {
				t.Errorf("the receipt lacks %q:\n%s", want, list[0].Text())
			}
		}
		if at := list[0].At.Local(); at.Weekday() != time.Monday || at.Hour() != receiptHour {
			t.Errorf("it came at %s", at)
		}
		// One that is due while the node is off comes at the next start, once.
		time.Sleep(15 * 24 * time.Hour)
		before := len(list)
		_, stop = n.runs()
		time.Sleep(time.Hour)
		stop()
		if got := len(n.took("phone")); got != before+1 {
			t.Errorf("%d receipts, %d before", got, before)
		}
	})
}

func TestANodeWithoutReceiversDoesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		x, stop := n.runs()
		defer stop()
		n.happens(byPeer(history.Hold, "sshd"))
		time.Sleep(time.Hour)
		n.mu.Lock()
		n.entries = []Entry{*entry(Hold)}
		n.mu.Unlock()
		x.Reload()
		time.Sleep(time.Minute)
		if got := n.sent("phone"); got != "" {
			t.Errorf("old events are told to a new receiver: %q", got)
		}
		n.happens(byPeer(history.Hold, "sshd"))
		time.Sleep(time.Minute)
		if got := n.sent("phone"); got != "hold |" {
			t.Errorf("phone was sent %q", got)
		}
		n.mu.Lock()
		n.entries = nil
		n.mu.Unlock()
		x.Reload()
		if list, err := x.Test(t.Context(), ""); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

func FuzzADamagedStateIsSurvived(f *testing.F) {
	f.Add([]byte(`{"cursor":5,"outboxes":{"phone":{"pending":{"hold":{"id":"x","notices":[{"kind":"hold","text":"a"}],"behind":{"notices":[]}}}}}}`))
	f.Add([]byte(`{"outboxes":{"phone":null},"standings":{"x":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "notify.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := readState(path)
		e := entry(Kinds()...)
		look(s.Standings, nil, func(string) string { return "" }, noon)
		for _, o := range s.Outboxes {
			o.add(hold("alice"), noon)
			for now := noon; o.waiting() > 0 && now.Before(noon.Add(48*time.Hour)); now = now.Add(time.Hour) {
				k, _ := o.due(e, now)
				if k == "" {
					continue
				}
				o.begin(k)
				_ = o.Pending[k].message(k, e, Page{}, now).Text()
				o.done(k, "ok", nil, 0, now)
			}
		}
	})
}
