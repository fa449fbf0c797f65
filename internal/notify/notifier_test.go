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
