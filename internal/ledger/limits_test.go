package ledger

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// node gives a feed of another node of an operator.
func node(operator string, n int) ban.Feed {
	f := feed(operator)
	f.Node = ban.NodeOf(fmt.Appendf(nil, "%s %d", operator, n))
	return f
}

func (w *world) quarantine(name string) *Quarantine {
	for _, p := range w.Peers.List() {
		if p.Name == name {
			return p.Quarantine
		}
	}
	return nil
}

// Whatever a peer says, who exceeds a limit is quarantined by name, the others
// count, and the next start, which replays the same bytes, is the same.
func TestALimitOfForeignBytesQuarantinesAndIsNeverFatal(t *testing.T) {
	small := &bounds{topics: 2, records: 10, votes: 12, feeds: ownFeeds + 4, nodes: 3}
	honest := ban.Change{Feed: feed("bob"), Reset: true, Claims: many(0, 1, time.Hour)}
	for _, c := range []struct {
		name   string
		within func(*world)
		beyond func(*world)
		reason QuarantineReason
	}{
		{
			"disputes", func(w *world) { w.must(w.Peers.Dispute(feed("alice"), manyDisputes(maxDisputes))) },
			func(w *world) { w.must(w.Peers.Dispute(feed("alice"), manyDisputes(maxDisputes+1))) }, QuarantineDisputes,
		},
		{
			"disputes of several nodes",
			func(w *world) {
				w.must(w.Peers.Dispute(node("alice", 1), manyDisputes(maxDisputes-1)))
				w.must(w.Peers.Dispute(node("alice", 2), manyDisputes(1)))
			},
			func(w *world) {
				w.must(w.Peers.Dispute(node("alice", 1), manyDisputes(maxDisputes)))
				w.must(w.Peers.Dispute(node("alice", 2), manyDisputes(1)))
			}, QuarantineDisputes,
		},
		{
			"targets", func(w *world) {
				w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(100, 9, time.Hour)}))
			},
			func(w *world) {
				w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(100, 10, time.Hour)}))
			}, QuarantineTargets,
		},
		{
			"feeds of an operator",
			func(w *world) {
				for n := range 3 {
					w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n, 1, time.Hour)}))
				}
			},
			func(w *world) {
				for n := range 4 {
					w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n, 1, time.Hour)}))
				}
			}, QuarantineFeeds,
		},
		{
			"feeds in all", func(w *world) {
				for n := range 2 {
					w.must(w.Peers.Apply(ban.Change{Feed: node("carol", n), Reset: true, Claims: many(n, 1, time.Hour)}))
				}
				w.must(w.Peers.Apply(ban.Change{Feed: node("alice", 0), Reset: true, Claims: many(0, 1, time.Hour)}))
			},
			func(w *world) {
				for n := range 2 {
					w.must(w.Peers.Apply(ban.Change{Feed: node("carol", n), Reset: true, Claims: many(n, 1, time.Hour)}))
				}
				for n := range 2 {
					w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n, 1, time.Hour)}))
				}
			}, QuarantineFeeds,
		},
		{
			"topics", func(w *world) {
				f := feed("alice")
				f.Topic = "second"
				w.must(w.Peers.Apply(ban.Change{Feed: f, Reset: true, Claims: many(0, 1, time.Hour)}))
			},
			func(w *world) {
				f := feed("alice")
				for _, f.Topic = range []ban.Topic{"second", "third"} {
					w.must(w.Peers.Apply(ban.Change{Feed: f, Reset: true, Claims: many(0, 1, time.Hour)}))
				}
			}, QuarantineTopics,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{}, "alice", "bob", "carol"), testingBounds: small})
			replay := func(f func(*world)) {
				w.must(w.Peers.Apply(honest))
				f(w)
				if w.Action("sshd", honest.Claims[0].Target) != policy.Ban {
					t.Error("an honest peer's claim does not count")
				}
			}
			replay(c.within)
			if q := w.quarantine("alice"); q != nil {
				t.Fatalf("at the limit: %+v", q)
			}
			replay(c.beyond)
			check := func(when string) {
				t.Helper()
				q := w.quarantine("alice")
				if q == nil || q.Reason != c.reason || q.Feed == "" || !q.Since.Equal(t0) {
					t.Fatalf("%s: %+v", when, q)
				}
			}
			check("beyond the limit")
			for range 2 {
				w.restart()
				check("after a start")
				replay(c.beyond)
				check("after the replay")
			}
			w.must(w.Peers.Release(op("alice")))
			if q := w.quarantine("alice"); q != nil {
				t.Errorf("after the release: %+v", q)
			}
		})
	}
}

func manyDisputes(n int) []Dispute {
	list := make([]Dispute, n)
	for i, c := range many(50_000, n, 0) {
		list[i] = Dispute{c.Target, t0.Add(time.Hour)}
	}
	return list
}

// More than a peer's budget could ever let in is not even kept, and shows.
func TestWhatIsKeptOfAPeerIsBounded(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{Live: ptr(40)}, "alice", "bob")})
	most := capacity(w.Policy().Limits("sshd"))
	for n := range 3 { // all of its nodes together
		w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n*most, most, time.Hour)}))
	}
	check := func(when string) {
		t.Helper()
		w.wantBanned(40, when)
		if s := w.Stats(); s.Claims != most || s.Dropped != 2*most || s.Waiting != most-40 {
			t.Errorf("%s: %+v, want %d claims", when, s, most)
		}
		dropped := 0
		for _, h := range w.Peers.Holds() {
			if h.Why == HoldCapacity {
				dropped += h.Claims
			}
		}
		if dropped != 2*most {
			t.Errorf("%s: holds say that %d are not kept", when, dropped)
		}
		if x := w.Peers.Troubles(); len(x) != 1 || x[0].Operator != op("alice") || x[0].Dropped != 2*most || x[0].Quarantine != nil {
			t.Errorf("%s: troubles are %+v", when, x)
		}
	}
	check("after the joins")
	w.restart()
	for n := range 3 {
		w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n*most, most, time.Hour)}))
	}
	check("after a restart")
	// Its withdrawals make room.
	var gone []ban.Target
	for _, c := range many(0, 100, 0) {
		gone = append(gone, c.Target)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: node("alice", 0), Withdrawn: ban.Withdraw(ban.ReasonMistake, gone...)}))
	w.must(w.Peers.Apply(ban.Change{Feed: node("alice", 1), Claims: many(most, 100, time.Hour)}))
	if s := w.Stats(); s.Claims != most {
		t.Errorf("%+v, want %d claims again", s, most)
	}
	for _, p := range w.Peers.List() {
		if p.Name == "alice" && p.Withdrawn[ban.ReasonMistake] != 100 {
			t.Errorf("it withdrew %v", p.Withdrawn)
		}
	}
}

// Rotating nodes opens no new join: an operator has one first hour that lets
// claims in without a rate, whatever its nodes are.
func TestAnOperatorJoinsOnce(t *testing.T) {
	limits := policy.LimitsSource{Live: ptr(300), PerHour: ptr(20), Turnover: ptr(1)}
	w := newWorld(t, Options{Policy: limited(t, limits, "alice")})
	rotate := func(n int) {
		w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n*300, 300, 48*time.Hour)}))
		w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n-1), Reset: true}))
	}
	total := 0
	for n := 1; n <= 20; n++ {
		rotate(n)
		for _, c := range w.Enforcement.Take(1 << 20) {
			if c.Ban {
				total++
			}
		}
		if n == 10 {
			w.restart()
			w.must(w.Peers.Apply(ban.Change{Feed: node("alice", n), Reset: true, Claims: many(n*300, 300, 48*time.Hour)}))
			w.Enforcement.Take(1 << 20)
		}
	}
	if most := 300 + 20; total > most {
		t.Errorf("twenty nodes in turn banned %d, want at most %d", total, most)
	}
}

// A guard is opened by a person or by a day, not by a withdrawal.
func TestAGuardOpensByAPersonOrTime(t *testing.T) {
	limits := policy.LimitsSource{PerHour: ptr(10)}
	for _, restart := range []bool{false, true} {
		w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice", TTL: "300h", Limits: &limits}, "alice")})
		all := many(0, 30, 200*time.Hour)
		replay := func() {
			if restart {
				w.restart()
				w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: all}))
			}
		}
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: all}))
		w.wantBanned(10, "the floor")
		var gone []ban.Target
		for _, c := range all[10:] {
			gone = append(gone, c.Target)
		}
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonEnded, gone...)}))
		all = all[:10]
		replay()
		all = append(all, many(100, 30, 200*time.Hour)...)
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: all[10:]}))
		w.wantBanned(10, "after what waited was withdrawn")
		replay()
		w.now = w.now.Add(guardOpens - time.Minute)
		w.Expire(w.now)
		w.wantBanned(10, "for a day")
		if h := w.Peers.Holds(); len(h) != 1 || !h[0].Opens.Equal(t0.Add(guardOpens)) {
			t.Errorf("holds are %+v", h)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.Expire(w.now)
		w.wantBanned(20, "a day later, at the rate")
		replay()
		w.now = w.now.Add(time.Hour)
		w.Expire(w.now)
		w.wantBanned(30, "an hour later")
	}
}

// An approval for a time lets in the claims that come within it, over a restart
// too.
func TestAnApprovalLastsAsLongAsItSays(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{PerHour: ptr(10), Turnover: ptr(1)}, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(0, 50, 48*time.Hour)}))
	w.wantBanned(10, "the floor")
	n, err := w.Peers.Approve(op("alice"), "", 6*time.Hour)
	w.must(err)
	if n != 40 {
		t.Errorf("approved %d", n)
	}
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 50, 48*time.Hour)}))
	for hour := range 8 {
		w.now = t0.Add(time.Duration(hour) * time.Hour)
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(1000+100*hour, 100, 48*time.Hour)}))
		want := min(6, hour+1)*100 + 50
		if got := w.count(); hour < 6 && got != want || hour >= 6 && got > 650+2*110 {
			t.Errorf("in hour %d: %d are banned", hour, got)
		}
	}
	if _, err := w.Peers.Approve(op("alice"), "", MaxApproval+1); err == nil {
		t.Error("an approval for ever passed")
	}
}
