package page

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// evil is a text of a stranger's with everything that could do harm on a page.
const evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.\u200b\x1b[31m\x00"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeNode answers as an agent would, and remembers its orders.
type fakeNode struct {
	mu     sync.Mutex
	status control.Status
	bans   []control.Ban
	peers  []control.Peer
	holds  []control.Hold
	events []control.Event
	posts  []string // path and body
	ask    bool     // the next post is answered with a question
}

func (n *fakeNode) handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(url.Values) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			n.mu.Lock()
			defer n.mu.Unlock()
			control.WriteJSON(w, http.StatusOK, f(r.URL.Query()))
		})
	}
	get("/v1/status", func(url.Values) any { return n.status })
	get("/v1/peers", func(url.Values) any { return n.peers })
	get("/v1/allow", func(url.Values) any {
		return []control.Exemption{{Target: ban.MustTarget("198.51.100.9"), Allow: true, Since: noon, Comment: evil}}
	})
	get("/v1/feeds", func(url.Values) any {
		return []control.Feed{{Topic: "sshd", Operator: n.status.Operator, Node: "node2", Name: evil, Status: "synced", Claims: 7, Issued: noon}}
	})
	get("/v1/hold", func(url.Values) any { return n.holds })
	get("/v1/documents", func(url.Values) any {
		return control.Documents{Lists: []control.WalletList{{By: evil, Name: evil, Topic: "gateway-spam", Entries: []control.ListedWallet{{Wallet: ban.MustTarget("0x52908400098527886E0F7030069857D2E4169EE7"), Note: evil}}}}}
	})
	get("/v1/history", func(url.Values) any {
		return control.EventPage{Events: n.events, Next: uint64(len(n.events)), Kept: len(n.events)}
	})
	get("/v1/events", func(q url.Values) any {
		after, _ := strconv.Atoi(q.Get("after"))
		limit, _ := strconv.Atoi(q.Get("limit"))
		rest := n.events[min(after, len(n.events)):]
		page := control.EventPage{Events: rest[:min(limit, len(rest))], More: len(rest) > limit, Next: uint64(len(n.events))}
		if page.More {
			page.Next = page.Events[limit-1].Cursor
		}
		return page
	})
	get("/v1/bans/page", func(q url.Values) any {
		limit, _ := strconv.Atoi(q.Get("limit"))
		offset, _ := strconv.Atoi(q.Get("offset"))
		offset, limit = max(0, min(offset, len(n.bans))), max(limit, 0)
		return control.BanPage{Bans: n.bans[offset:min(offset+limit, len(n.bans))], Total: len(n.bans), Matching: len(n.bans), Offset: offset}
	})
	get("/v1/explain", func(q url.Values) any {
		t, _ := ban.ParseTarget(q.Get("target"))
		return control.Explanation{Target: t, Guest: evil, Standings: []control.Standing{{
			Topic: "sshd", Target: t, Action: control.ActionBan, Sentence: "the topic's ban rule is met", Rule: evil, Since: noon, Until: noon.Add(time.Hour),
			Claims: []control.Claimed{{Name: evil, On: t, Hits: 3, End: noon.Add(time.Hour), Counts: true, Evidence: &control.Evidence{By: "sshd", Sample: evil}}}, Lifts: []string{"agent unban " + t.String()},
		}}}
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.ask && !bytes.Contains(b, []byte(`"yes":true`)) {
			control.WriteError(w, control.Refuse(control.CodeAsk, "", "this lifts 7 bans"))
			return
		}
		n.posts = append(n.posts, r.URL.Path+" "+string(b))
		control.WriteJSON(w, http.StatusOK, json.RawMessage(`{"count":3,"target":"203.0.113.7","topic":"sshd"}`))
	})
	return mux
}

func (n *fakeNode) did() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.posts
}

// newFake has something of everything, foreign texts among it.
func newFake() *fakeNode {
	n := &fakeNode{status: control.Status{
		Version: "test", Started: noon.Add(-time.Hour), Operator: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Node: "node1", Enforcement: "nftables", Bans: 12_345, Watched: 3, Waiting: 2,
		Topics: []control.TopicStatus{
			{Topic: "sshd", Detect: true, Subscribe: true, Policy: "any of alice", Own: 1, Bans: 2, Packets: 900},
			{Topic: "livepeer", Publish: true},
		},
		Sources:  []control.SourceStatus{{Name: evil, Kind: "file", Topics: []ban.Topic{"sshd"}, Found: 1, Read: 100, Matched: 3, LastLine: noon}, {Name: "/var/log/none", Topics: []ban.Topic{"sshd"}}},
		Brokers:  []control.BrokerStatus{{URL: "ssl://broker.example.org:8883", Error: evil}},
		Warnings: []control.Warning{{Code: "x", Severity: control.SeverityHigh, Text: evil, Fix: "agent check"}},
		Shielded: []control.Shielded{{Topic: "sshd", Target: ban.MustTarget("192.0.2.1"), Entry: evil, Offences: 3, Last: noon}},
	}}
	alice := ban.OperatorOf([]byte("alice"))
	n.peers = []control.Peer{{Operator: alice, Name: "alice", Claims: 1000, Banning: 40, Met: 12, Measured: 800, Guests: 2, Recent: []control.Strike{{Target: ban.MustTarget("192.0.2.1"), Topic: "sshd", At: noon, Why: evil}}}}
	n.holds = []control.Hold{{Feed: "f", Topic: "sshd", Operator: alice, Name: "alice", Why: control.HoldGuard, Claims: 9, Sample: []ban.Target{ban.MustTarget("203.0.113.77")}}}
	for i := range 250 {
		n.bans = append(n.bans, control.Ban{Target: ban.MustTarget(netip.AddrFrom4([4]byte{45, 1, byte(i / 250), byte(i)}).String()), Topic: "sshd", Until: noon.Add(time.Hour), Origin: []string{"here", evil}, Hits: 5})
		n.events = append(n.events, control.Event{Cursor: uint64(i + 1), At: noon.Add(-time.Duration(i) * 4 * time.Minute), Kind: "ban", Topic: "sshd", Target: n.bans[i].Target, Why: evil, Sample: evil, Peers: []string{"alice"}})
	}
	return n
}

// explained is the account of a shipped topic.
func explained(topic ban.Topic, line string) detect.Explanation {
	for _, d := range topics.Builtin() {
		if d.Name == topic && d.Detect != nil {
			if list, err := detect.Explain(detect.Options{Jails: []detect.Jail{{Definition: d}}}, []byte(line), false, ""); err == nil && len(list) > 0 {
				return list[0]
			}
		}
	}
	return detect.Explanation{}
}

func someTopics() []Topic {
	return []Topic{
		{Topic: "livepeer", Title: evil, Detectable: true, Publish: true},
		{Topic: "sshd", Title: "Failed logins", Detectable: true, Detect: true, Subscribe: true, Policy: "any of alice"},
		{Topic: "gateway-spam", Title: "Wallets", Wallets: true},
		{Topic: "nginx", Title: "Web", Detectable: true},
	}
}
