package ledger

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// many gives n claims of addresses from 10.0.0.0 on.
func many(from, n int, d time.Duration) []ban.Claim {
	list := make([]ban.Claim, n)
	for i := range list {
		a := uint32(10<<24 + from + i)
		t, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}))
		if err != nil {
			panic(err)
		}
		list[i] = ban.Claim{Target: t, End: t0.Add(d), Class: ban.ClassAuth, Hits: 3, Basis: ban.BasisStrong}
	}
	return list
}

func (w *world) count() int {
	n := 0
	for range w.Enforcement.Desired() {
		n++
	}
	return n
}

func (w *world) wantBanned(want int, when string) {
	w.t.Helper()
	if got := w.count(); got != want {
		w.t.Errorf("%s: %d banned, want %d", when, got, want)
	}
}

func limited(t testing.TB, l policy.LimitsSource, names ...string) *policy.Policy {
	return rules(t, policy.TopicSource{Ban: "any of everyone", Watch: "any of everyone", Limits: &l}, names...)
}

func TestAFloodWaitsForAPersonAndIsWatchedMeanwhile(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{PerHour: ptr(500)}, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 1000, 48*time.Hour)}))
	w.wantBanned(1000, "after the join")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(100_000, 1000, 48*time.Hour)}))
	w.wantBanned(1500, "after a flood: the hour's rate may pass")
	if !w.Watched("sshd", many(100_900, 1, 0)[0].Target) {
		t.Error("what waits is not watched")
	}
	holds := w.Peers.Holds()
	if len(holds) != 1 || holds[0].Claims != 500 || holds[0].Why != HoldGuard || holds[0].Name != "alice" || len(holds[0].Sample) == 0 {
		t.Fatalf("holds are %+v", holds)
	}
	if e := w.Explain(many(100_900, 1, 0)[0].Target); e.Standings[0].Why != policy.ReasonHeld {
		t.Errorf("explain says %+v", e.Standings[0])
	}
	w.must(w.Close())
	w.restart()
	join := ban.Change{Feed: feed("alice"), Reset: true, Claims: append(many(0, 1000, 48*time.Hour), many(100_000, 1000, 48*time.Hour)...)}
	w.must(w.Peers.Apply(join))
	w.wantBanned(1500, "after a restart")
	w.now = w.now.Add(10 * time.Hour)
	w.Expire(w.now)
	w.wantBanned(1500, "hours later")
	n, err := w.Peers.Approve(op("alice"), "sshd", 0)
	w.must(err)
	if n != 500 {
		t.Errorf("approved %d", n)
	}
	w.wantBanned(2000, "after the approval")
	w.restart()
	w.must(w.Peers.Apply(join))
	w.wantBanned(2000, "after the approval and a restart")
	if _, err := w.Peers.Approve(op("alice"), "sshd", 0); !errors.Is(err, ErrUnknown) {
		t.Errorf("approving nothing: %v", err)
	}
}

func TestARejectedFloodStaysRejected(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{PerHour: ptr(10)}, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(0, 50, 48*time.Hour)}))
	w.wantBanned(10, "the floor")
	n, err := w.Peers.Reject(op("alice"), "")
	w.must(err)
	if n != 40 {
		t.Errorf("rejected %d", n)
	}
	turned := many(45, 1, 0)[0].Target
	for range 2 {
		if w.Watched("sshd", turned) {
			t.Error("what a person rejected is watched")
		}
		if e := w.Explain(turned); e.Standings[0].Claims[0].WhyNot != policy.ReasonRejected {
			t.Errorf("explain says %+v", e.Standings[0])
		}
		if s := w.Stats(); s.Waiting != 0 {
			t.Errorf("%d claims wait that a person rejected", s.Waiting)
		}
		for _, b := range w.Peers.Brakes() {
			if b.Waiting != 0 {
				t.Errorf("%d claims wait that a person rejected: %+v", b.Waiting, b)
			}
		}
		w.restart()
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 50, 48*time.Hour)}))
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 50, 48*time.Hour)}))
	w.now = t0.Add(5 * time.Hour)
	w.Expire(w.now)
	w.wantBanned(10, "after a restart and hours")
	// The guard let go with the rejection: later claims are looked at anew.
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(1000, 5, 48*time.Hour)}))
	w.wantBanned(15, "five more")
}

// Whom nobody asks about it, a flood reaches at its hourly rate, a day later.
func TestAFloodThatNobodyDecidesAboutComesInSlowly(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{PerHour: ptr(20), Turnover: ptr(0)}, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(0, 100, 48*time.Hour)}))
	w.wantBanned(20, "the hour's rate")
	for hour := range 23 {
		w.now = t0.Add(time.Duration(hour) * time.Hour)
		w.Expire(w.now)
	}
	w.wantBanned(20, "for a day a person is asked")
	for _, hour := range []int{25, 26} {
		w.now = t0.Add(time.Duration(hour)*time.Hour + time.Minute)
		w.Expire(w.now)
		w.now = w.now.Add(10 * time.Second)
		w.Expire(w.now)
	}
	w.wantBanned(60, "two hours after that day")
	if h := w.Peers.Holds(); len(h) != 1 || h[0].Why != HoldBudget || h[0].Claims != 40 {
		t.Errorf("holds are %+v", h)
	}
	// A waiting claim that is withdrawn never counts.
	var gone []ban.Target
	for _, c := range many(0, 100, 0) {
		gone = append(gone, c.Target)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonEnded, gone...)}))
	w.now = t0.Add(30 * time.Hour)
	w.Expire(w.now)
	w.wantBanned(0, "after a withdrawal")
	if len(w.Peers.Holds()) != 0 {
		t.Errorf("something waits: %+v", w.Peers.Holds())
	}
}

func TestLiveBansAndAddressesAreBounded(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{Live: ptr(50)}, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: append(many(0, 40, time.Hour), many(1000, 40, 9*time.Hour)...)}))
	w.wantBanned(50, "the live budget")
	w.now = t0.Add(time.Hour + time.Minute)
	w.Expire(w.now)
	w.now = w.now.Add(10 * time.Second)
	w.Expire(w.now)
	w.wantBanned(40, "when others ended")

	p := rules(t, policy.TopicSource{Ban: "any of everyone", Prefix: []string{"v4/16"}, Limits: &policy.LimitsSource{Addresses: ptr(70_000)}}, "alice")
	w = newWorld(t, Options{Policy: p})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("11.1.0.0/16", time.Hour), claim("11.2.0.0/16", time.Hour), claim("11.3.0.0/24", time.Hour), claim("0.0.0.0/1", time.Hour)}}))
	w.wantDesired("sshd 11.1.0.0/16 1h0m0s", "sshd 11.3.0.0/24 1h0m0s")
}

func TestStrikesQuarantineAndSurviveAKill(t *testing.T) {
	w := newWorld(t, Options{
		Policy:   limited(t, policy.LimitsSource{}, "alice", "bob"),
		NeverBan: never{netip.MustParsePrefix("11.0.0.0/24")},
	})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("12.0.0.1", time.Hour), claim("11.0.0.1", time.Hour), claim("11.0.0.1", 2*time.Hour), claim("0.0.0.0/1", time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: []ban.Claim{claim("12.0.0.2", time.Hour)}}))
	w.wantBanned(2, "two strikes")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("11.0.0.9", time.Hour)}}))
	w.wantDesired("sshd 12.0.0.2 1h0m0s")
	check := func() {
		t.Helper()
		for _, p := range w.Peers.List() {
			if p.Name == "alice" && (p.Quarantine == nil || p.Quarantine.Reason != QuarantineStrikes || p.Strikes != 3 || len(p.Recent) != 3) {
				t.Errorf("alice is %+v", p)
			}
			if p.Name == "bob" && (p.Quarantine != nil || p.Banning != 1) {
				t.Errorf("bob is %+v", p)
			}
		}
		if e := w.Explain(ban.MustTarget("12.0.0.1")); len(e.Standings) == 0 || e.Standings[0].Claims[0].WhyNot != policy.ReasonQuarantine {
			t.Errorf("explain says %+v", e)
		}
	}
	check()
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("12.0.0.1", time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: []ban.Claim{claim("12.0.0.2", time.Hour)}}))
	w.wantDesired("sshd 12.0.0.2 1h0m0s")
	check()
	w.must(w.Peers.Release(op("alice")))
	w.wantDesired("sshd 12.0.0.1 1h0m0s", "sshd 12.0.0.2 1h0m0s")
	lifted, err := w.Peers.Undo(op("bob"), "")
	w.must(err)
	if lifted != 1 {
		t.Errorf("undo lifted %d", lifted)
	}
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: []ban.Claim{claim("12.0.0.2", time.Hour)}}))
	w.wantBanned(0, "after undo and a restart")
	w.must(w.Peers.Release(op("bob")))
	w.wantBanned(1, "after the release")
	if err := w.Peers.Release(op("bob")); !errors.Is(err, ErrUnknown) {
		t.Errorf("releasing twice: %v", err)
	}
}

func TestDisputesLiftABanWhileTheyStand(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice", Watch: "any of alice", Dispute: "2 of alice, bob, carol"}, "alice", "bob", "carol")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("12.0.0.1", 5*time.Hour)}}))
	d := []Dispute{{ban.MustTarget("12.0.0.1"), t0.Add(time.Hour)}}
	w.must(w.Peers.Dispute(feed("bob"), d))
	w.wantBanned(1, "one dispute")
	w.must(w.Peers.Dispute(feed("carol"), d))
	w.wantBanned(0, "two disputes")
	if e := w.Explain(ban.MustTarget("12.0.0.1")); e.Standings[0].Why != policy.ReasonDisputed || e.Standings[0].Action != policy.Watch {
		t.Errorf("explain says %+v", e.Standings[0])
	}
	w.now = t0.Add(time.Hour + 10*time.Second)
	w.Expire(w.now)
	w.wantBanned(1, "when the disputes ended")
	w.must(w.Peers.Dispute(feed("bob"), []Dispute{{ban.MustTarget("12.0.0.1"), t0.Add(3 * time.Hour)}}))
	w.must(w.Peers.Dispute(feed("carol"), []Dispute{{ban.MustTarget("12.0.0.1"), t0.Add(3 * time.Hour)}}))
	w.wantBanned(0, "two new disputes")
	w.must(w.Peers.Dispute(feed("bob"), nil))
	w.wantBanned(1, "when one was withdrawn")
}

func TestProbationEndsByItself(t *testing.T) {
	s := policy.Source{
		Operators: map[string]policy.OperatorSource{"alice": {ID: op("alice").String(), Since: t0.Add(-71 * time.Hour)}},
		Topics:    map[string]policy.TopicSource{"sshd": {Ban: "any of alice"}},
	}
	p, err := policy.Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Options{Policy: p})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("12.0.0.1", 5*time.Hour)}}))
	w.wantBanned(0, "on probation")
	if e := w.Explain(ban.MustTarget("12.0.0.1")); e.Standings[0].Why != policy.ReasonProbation || !w.Watched("sshd", ban.MustTarget("12.0.0.1")) {
		t.Errorf("explain says %+v", e.Standings[0])
	}
	w.now = t0.Add(time.Hour)
	w.Expire(w.now)
	w.wantBanned(1, "when it ended")
}

func TestWhenAClaimArrivedIsKnownAfterARestart(t *testing.T) {
	p := rules(t, policy.TopicSource{Ban: "2 of alice, bob within 1h"}, "alice", "bob")
	w := newWorld(t, Options{Policy: p})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 1, 48*time.Hour)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: many(5, 1, 48*time.Hour)}))
	w.now = t0.Add(30 * time.Minute)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(1, 1, 48*time.Hour)}))
	w.now = t0.Add(2 * time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: many(0, 2, 48*time.Hour)}))
	w.wantBanned(0, "too far apart")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(5, 1, 48*time.Hour)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(7, 1, 48*time.Hour)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: many(7, 1, 48*time.Hour)}))
	w.wantBanned(1, "close together")
	w.must(w.Close())
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: append(many(0, 2, 48*time.Hour), append(many(5, 1, 48*time.Hour), many(7, 1, 48*time.Hour)...)...)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: append(many(0, 2, 48*time.Hour), append(many(5, 1, 48*time.Hour), many(7, 1, 48*time.Hour)...)...)}))
	w.wantBanned(1, "after a restart")
}

// Since when somebody is banned is no matter of when the agent was started.
func TestABanBeganBeforeTheRestart(t *testing.T) {
	p := rules(t, policy.TopicSource{Ban: "any of alice"}, "alice")
	w := newWorld(t, Options{Policy: p})
	own, peers := many(0, 1, 48*time.Hour), many(1, 1, 48*time.Hour)
	w.must(w.BanLocal("sshd", own[0], Evidence{}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: peers}))
	w.now = t0.Add(time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: own})) // of who is banned here already
	check := func(when string) {
		t.Helper()
		for _, c := range []ban.Claim{own[0], peers[0]} {
			e := w.Explain(c.Target)
			if len(e.Standings) != 1 || !e.Standings[0].Since.Equal(t0) {
				t.Errorf("%s: %v is banned since %+v, want %v", when, c.Target, e.Standings, t0)
			}
		}
	}
	check("before")
	w.must(w.Close())
	w.now = t0.Add(2 * time.Hour)
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: append(own, peers...)}))
	check("after a restart")
}

func TestTheNewestUnbanOfATargetCounts(t *testing.T) {
	w := newWorld(t, Options{})
	target := ban.MustTarget("12.0.0.1")
	want := func(topic ban.Topic, at time.Time) {
		t.Helper()
		if got := w.exempt.unbannedAt(topic, target); !got.Equal(at) {
			t.Errorf("%s: %v, want %v", topic, got, at)
		}
	}
	want("sshd", time.Time{})
	for i, e := range []Exemption{{Target: ban.MustTarget("12.0.0.0/24")}, {Target: target}, {Target: target, Topic: "spam"}, {Target: ban.MustTarget("12.0.1.0/24")}} {
		w.now = t0.Add(time.Duration(i) * time.Minute)
		_, err := w.Exemptions.Add([]Exemption{e}, 0)
		w.must(err)
	}
	_, err := w.Exemptions.Allow(ban.MustTarget("12.0.0.0/8"), time.Time{}, "")
	w.must(err)
	want("sshd", t0.Add(time.Minute))
	want("spam", t0.Add(2*time.Minute))
}

func TestPeersUsefulnessIsCounted(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{}, "alice", "bob")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 10, time.Hour)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: many(8, 4, time.Hour)}))
	w.must(w.BanLocal("sshd", many(0, 1, time.Hour)[0], Evidence{}))
	_, err := w.Exemptions.Unban(many(1, 1, 0)[0].Target, 0, "")
	w.must(err)
	w.must(w.Close())
	w.restart()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 10, time.Hour)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: many(8, 4, time.Hour)}))
	got := ""
	for _, p := range w.Peers.List() {
		got += fmt.Sprintf("%s: %d feeds, %d claims, %d banning, %d alone, %d corroborated, %d met, %d overruled\n",
			p.Name, p.Feeds, p.Claims, p.Banning, p.Alone, p.Corroborated, p.Met, p.Overruled)
	}
	want := "alice: 1 feeds, 10 claims, 9 banning, 6 alone, 3 corroborated, 1 met, 1 overruled\n" +
		"bob: 1 feeds, 4 claims, 4 banning, 2 alone, 2 corroborated, 0 met, 0 overruled\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A feed of many claims comes in pieces: when it is first heard, and at each
// start.
func TestAJoinInPiecesIsNoFlood(t *testing.T) {
	w := newWorld(t, Options{Policy: limited(t, policy.LimitsSource{}, "alice")})
	join := func(each, n int) {
		for i := 0; i < n; i += each {
			w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: i == 0, More: i+each < n, Claims: many(i, min(each, n-i), 48*time.Hour)}))
		}
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true})) // it is followed, and nothing was heard yet
	join(400, 3000)
	w.wantBanned(3000, "after the join")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(100_000, 2000, 48*time.Hour)}))
	w.wantBanned(4250, "after a flood: ten of its usual hours pass")
	w.must(w.Close())
	w.restart()
	before := w.now
	w.now = w.now.Add(time.Hour)
	all := append(many(0, 3000, 48*time.Hour), many(100_000, 2000, 48*time.Hour)...)
	for i := 0; i < len(all); i += 700 {
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: i == 0, More: i+700 < len(all), Claims: all[i:min(i+700, len(all))]}))
	}
	w.wantBanned(4250, "after a restart")
	for _, i := range []int{0, 2999} {
		if c := w.Explain(many(i, 1, 0)[0].Target).Standings[0].Claims[0]; !c.Since.Equal(before) {
			t.Errorf("claim %d came at %v, want %v", i, c.Since, before)
		}
	}
	// Claims that a later Reset does not repeat are withdrawn at its end, not before.
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, More: true, Claims: many(0, 10, 48*time.Hour)}))
	w.wantBanned(4250, "in the middle of a Reset")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(2000, 10, 48*time.Hour)}))
	w.wantBanned(20, "after a Reset")
}
