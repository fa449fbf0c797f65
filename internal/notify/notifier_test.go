package notify

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A node is the parts that a notifier reads, and receivers that keep their messages.
type node struct {
	t       *testing.T
	file    string
	mu      sync.Mutex
	events  []history.Event
	added   chan struct{}
	entries []Entry
	list    []control.Warning
	peers   []control.Peer
	got     map[string][]Message
	fails   map[string]bool // receivers that refuse
	hangs   map[string]bool // receivers that never answer
}

func newNode(t *testing.T, entries ...Entry) *node {
	return &node{t: t, file: filepath.Join(t.TempDir(), "notify.json"), added: make(chan struct{}), entries: entries, got: map[string][]Message{}, fails: map[string]bool{}, hangs: map[string]bool{}}
}

func (n *node) happens(list ...history.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range list {
		e.Cursor, e.At = history.Cursor(len(n.events)+1), time.Now().Truncate(time.Second)
		n.events = append(n.events, e)
	}
	close(n.added)
	n.added = make(chan struct{})
}

func (n *node) find(q history.Query) (history.Page, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := history.Page{Next: history.Cursor(len(n.events))}
	for _, e := range n.events {
		if e.Cursor > q.After && (q.Kinds == nil || slices.Contains(q.Kinds, e.Kind)) && (q.Target.IsZero() || q.Target == e.Target) && !e.At.Before(q.Since) {
			p.Events = append(p.Events, e)
		}
	}
	return p, nil
}

func (n *node) wait(ctx context.Context, q history.Query) (history.Page, error) {
	for {
		n.mu.Lock()
		added := n.added
		n.mu.Unlock()
		if p, _ := n.find(q); len(p.Events) > 0 {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return n.find(history.Query{After: 1 << 50})
		case <-added:
		}
	}
}

// sink is a node's receiver.
type fakeReceiver struct {
	n    *node
	name string
}

func (f fakeReceiver) send(ctx context.Context, m Message) (string, error) {
	f.n.mu.Lock()
	hangs, fails := f.n.hangs[f.name], f.n.fails[f.name]
	if !hangs && !fails {
		f.n.got[f.name] = append(f.n.got[f.name], m)
	}
	f.n.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return "", ctx.Err()
	}
	if fails {
		return "", errors.New("it is down")
	}
	return "taken", nil
}

func (n *node) open() *Notifier {
	return Open(Options{
		Entries: func() []Entry { n.mu.Lock(); defer n.mu.Unlock(); return slices.Clone(n.entries) }, Find: n.find, Wait: n.wait,
		Warnings: func(context.Context) []control.Warning { n.mu.Lock(); defer n.mu.Unlock(); return n.list },
		Mend:     func(code string) string { return "mend " + code }, Peers: func() []control.Peer { n.mu.Lock(); defer n.mu.Unlock(); return n.peers },
		Claims: func(topic ban.Topic, _ ban.Target) bool { return topic == "mine" }, Guest: func(ban.Target) bool { return false },
		File: n.file, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		receiver: func(e *Entry) (receiver, error) { return fakeReceiver{n, e.Name}, nil },
	})
}

// runs runs a notifier until the returned function is called.
func (n *node) runs() (x *Notifier, stop func()) {
	ctx, cancel := context.WithCancel(n.t.Context())
	x = n.open()
	done := make(chan struct{})
	go func() { defer close(done); _ = x.Run(ctx) }()
	return x, func() { cancel(); <-done }
}

// took gives the messages that a receiver took.
func (n *node) took(name string) []Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got[name])
}

// sent gives the kinds of the messages that a receiver took, with how many things
// each tells.
func (n *node) sent(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for _, m := range n.got[name] {
		list = append(list, strings.TrimSpace(string(m.Kind)+" "+strings.Repeat("|", len(m.Notices)+m.More)))
	}
	return strings.Join(list, ", ")
}

func byPeer(kind history.Kind, topic ban.Topic) history.Event {
	return history.Event{Kind: kind, Topic: topic, Target: ban.MustTarget("203.0.113.7"), By: "alice", Peers: []string{"alice"}, Why: "changes more than usual"}
}

func banned(by string) history.Event {
	e := byPeer(history.Ban, "sshd")
	e.By, e.Sample, e.Source, e.Why = by, "Failed password for root", "/var/log/auth.log", "a rule"
	return e
}

func TestEventsAreToldToThoseWhoWantThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bans, rest := *entry(Ban), *entry(Hold, Quarantine, Mistake)
		rest.Name = "mail"
		n := newNode(t, bans, rest)
		n.happens(banned("peers")) // before anybody is told anything
		time.Sleep(2 * time.Second)
		x, stop := n.runs()
		defer stop()
		synctest.Wait()
		time.Sleep(time.Second)
		n.happens(
			banned("peers"), banned("detection"), byPeer(history.Hold, "sshd"), byPeer(history.Quarantine, "sshd"),
			byPeer(history.Dispute, "sshd"), byPeer(history.Dispute, "mine"), byPeer(history.Withdraw, "mine"),
			history.Event{Kind: history.Hold, By: "a person", Peers: []string{"alice"}},
		)
		time.Sleep(time.Minute)
		if got := n.sent("phone"); got != "ban |" {
			t.Errorf("phone was sent %q", got)
		}
		// The dispute in sshd is of a target that was banned here.
		if got := n.sent("mail"); !strings.Contains(got, "hold |") || !strings.Contains(got, "quarantine |") || !strings.Contains(got, "mistake |||") {
			t.Errorf("mail was sent %q", got)
		}
		if s := x.Status(); s[0].Sent != 1 || s[0].Waiting != 0 || s[0].Answer != "taken" || s[0].LastSent.IsZero() {
			t.Errorf("the status is %+v", s[0])
		}
		if m := n.took("phone")[0]; strings.Contains(m.Text(), "root") || m.Notices[0].Detail != "" {
			t.Errorf("without details: %+v", m)
		}
	})
}

func TestAFloodIsOneMessageInFiveMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, *entry(Ban))
		_, stop := n.runs()
		defer stop()
		time.Sleep(time.Second)
		for range 14 * 60 {
			n.happens(banned("peers"))
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		if len(n.took("phone")) != 4 {
			t.Errorf("%d messages in 19 minutes: %s", len(n.took("phone")), n.sent("phone"))
		}
		sum := 0
		for _, m := range n.took("phone") {
			sum += len(m.Notices) + m.More
		}
		if sum != 14*60 {
			t.Errorf("%d bans were told of %d", sum, 14*60)
		}
	})
}

func TestAReceiverThatHangsDelaysItsOwnMessagesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		other := *entry(Hold)
		other.Name = "other"
		n := newNode(t, *entry(Hold), other)
		n.hangs["phone"] = true
		x, stop := n.runs()
		time.Sleep(time.Second)
		n.happens(byPeer(history.Hold, "sshd"))
		time.Sleep(20 * time.Second)
		if got := n.sent("other"); got != "hold |" {
			t.Errorf("other was sent %q", got)
		}
		time.Sleep(10 * time.Minute)
		if s := x.Status()[0]; s.Failing.IsZero() || s.Waiting != 1 || s.Failed < 3 || s.Next.IsZero() {
			t.Errorf("the status is %+v", s)
		}
		n.mu.Lock()
		n.hangs["phone"] = false
		n.mu.Unlock()
		time.Sleep(time.Hour)
		if got := n.sent("phone"); got != "hold |" {
			t.Errorf("phone was sent %q", got)
		}
		n.mu.Lock()
		n.hangs["phone"] = true
		n.mu.Unlock()
		n.happens(byPeer(history.Hold, "sshd"))
		time.Sleep(10 * time.Second)
		began := time.Now()
		stop()
		if d := time.Since(began); d > stopWithin {
			t.Errorf("the stop took %s", d)
		}
	})
}

// A kill is a notifier whose state of before the stop is put back.
func TestAKillLosesNoEventThatTheHistoryKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, *entry(Hold))
		n.fails["phone"] = true
		_, stop := n.runs()
		time.Sleep(time.Second)
		n.happens(byPeer(history.Hold, "sshd"))
		time.Sleep(20 * time.Second)
		before, err := os.ReadFile(n.file)
		if err != nil {
			t.Fatal(err)
		}
		n.happens(byPeer(history.Hold, "dovecot"))
		time.Sleep(20 * time.Second)
		stop()
		if err := os.WriteFile(n.file, before, 0o600); err != nil {
			t.Fatal(err)
		}
		n.happens(byPeer(history.Hold, "nginx")) // while nobody runs
		n.mu.Lock()
		n.fails["phone"] = false
		n.mu.Unlock()
		_, stop = n.runs()
		time.Sleep(10 * time.Minute)
		if got := n.sent("phone"); got != "hold |, hold ||" {
			t.Errorf("phone was sent %q", got)
		}
		stop()
		_, stop = n.runs()
		time.Sleep(10 * time.Minute)
		stop()
		if got := n.sent("phone"); got != "hold |, hold ||" {
			t.Errorf("after another start phone was sent %q", got)
		}
		if info, err := os.Stat(n.file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the state has mode %v (%v)", info.Mode(), err)
		}
	})
}

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
