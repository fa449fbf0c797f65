package ledger

import (
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

const day = 24 * time.Hour

func based(target string, basis ban.Basis, hits uint8, d time.Duration) ban.Claim {
	c := claim(target, d)
	c.Basis, c.Hits = basis, hits
	return c
}

// default rules for three who know each other.
func recommended(t testing.TB, names ...string) *policy.Policy {
	r := policy.Recommended("everyone", len(names))
	return rules(t, policy.TopicSource{Ban: r.Ban, Watch: r.Watch, Suspect: r.Suspect, Require: r.Require, Accept: true}, names...)
}

func (w *world) at(d time.Duration) {
	w.now = t0.Add(d)
	w.Expire(w.now)
}

func (w *world) acts(target string, want policy.Action, when string) {
	w.t.Helper()
	if got := w.Action("sshd", ban.MustTarget(target)); got != want {
		w.t.Errorf("%s: %s is %v, want %v", when, target, got, want)
	}
}

// A wallet denied for 30 days was served again after one, an orchestrator's ten
// days and another server's bans ended after a day.
func TestADecisionIsInForceToItsOwnEnd(t *testing.T) {
	const wallet = "0x52908400098527886e0f7030069857d2e4169ee7"
	w := newWorld(t, Options{Policy: recommended(t, "alice", "bob").As(op("me"))})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{based(wallet, ban.BasisDecided, 0, 30*day), based("9.0.0.1", ban.BasisDecided, 0, 10*day), based("9.0.0.2", ban.BasisStrong, 5, 30*day)}}))
	other := feed("me")
	w.must(w.Peers.Apply(ban.Change{Feed: other, Claims: []ban.Claim{based("9.0.0.3", ban.BasisDecided, 0, 20*day), based("9.0.0.4", ban.BasisStrong, 5, 3*day)}}))
	for _, x := range []string{wallet, "9.0.0.1", "9.0.0.2", "9.0.0.3", "9.0.0.4"} {
		w.acts(x, policy.Ban, "at once")
	}
	w.at(2 * day)
	for _, x := range []string{wallet, "9.0.0.1", "9.0.0.2", "9.0.0.3", "9.0.0.4"} {
		w.acts(x, policy.Ban, "two days on")
	}
	w.restart()
	for _, n := range []string{"alice", "me"} {
		claims := map[string][]ban.Claim{
			"alice": {based(wallet, ban.BasisDecided, 0, 30*day), based("9.0.0.1", ban.BasisDecided, 0, 10*day), based("9.0.0.2", ban.BasisStrong, 5, 30*day)},
			"me":    {based("9.0.0.3", ban.BasisDecided, 0, 20*day), based("9.0.0.4", ban.BasisStrong, 5, 3*day)},
		}[n]
		w.must(w.Peers.Apply(ban.Change{Feed: feed(n), Reset: true, Claims: claims}))
	}
	w.at(4 * day)
	w.acts(wallet, policy.Ban, "four days on")
	w.acts("9.0.0.1", policy.Ban, "four days on")
	w.acts("9.0.0.3", policy.Ban, "four days on")
	w.acts("9.0.0.2", policy.Ignore, "a machine's claim four days on")
	if s := w.Explain(ban.MustTarget("9.0.0.2")).Standings; len(s) != 1 || s[0].Claims[0].WhyNot != policy.ReasonAged {
		t.Errorf("explain says %+v", s)
	}
	w.at(15 * day)
	w.acts(wallet, policy.Ban, "15 days on")
	w.acts("9.0.0.1", policy.Ignore, "15 days on")
	w.acts("9.0.0.3", policy.Ban, "15 days on")
	if s := w.Explain(ban.MustTarget("9.0.0.3")).Standings; len(s) != 1 || s[0].Why != policy.ReasonOwnOperator || s[0].Claims[0].WhyNot != policy.ReasonOwnOperator {
		t.Errorf("explain says %+v", s)
	}
	w.at(31 * day)
	w.acts(wallet, policy.Ignore, "at its end")
}

// Agreeing lies held for a week where the truth ended after a day.
func TestALaterEndHoldsNoLonger(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "2 of everyone"}, "alice", "bob", "mallory", "mel")})
	for _, n := range []string{"mallory", "mel"} {
		w.must(w.Peers.Apply(ban.Change{Feed: feed(n), Claims: []ban.Claim{claim("9.0.0.1", 60*day)}}))
	}
	w.at(3*day - time.Minute)
	w.acts("9.0.0.1", policy.Ban, "within 72 hours")
	w.at(3 * day)
	w.acts("9.0.0.1", policy.Ignore, "after 72 hours")
}

// One hiccup of a node banned its customer everywhere: its lines are weak.
func TestWeakClaimsOfAPeerBanNobodyAndThreeWatch(t *testing.T) {
	w := newWorld(t, Options{Policy: recommended(t, "alice", "bob", "carol")})
	for i, want := range []policy.Action{policy.Ignore, policy.Ignore, policy.Watch} {
		w.must(w.Peers.Apply(ban.Change{Feed: feed([]string{"alice", "bob", "carol"}[i]), Claims: []ban.Claim{based("9.0.0.1", ban.BasisWeak, 200, day)}}))
		w.acts("9.0.0.1", want, "weak evidence")
	}
	if s := w.Explain(ban.MustTarget("9.0.0.1")).Standings[0]; s.Claims[0].WhyNot != policy.ReasonWeak || s.Rule != "3 weak of everyone" {
		t.Errorf("explain says %+v", s)
	}
}

// Naming a fourth operator ended 11 of 14 bans. Joined as the rules say, it
// ends none; named by hand, the effect says so beforehand.
func TestTheEffectOfNamingAFourthOperatorIsKnown(t *testing.T) {
	three := []string{"alice", "bob", "carol"}
	w := newWorld(t, Options{Policy: recommended(t, three...)})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(0, 11, day)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: many(100, 3, day)}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("carol"), Claims: many(100, 3, day)}))
	w.wantBanned(14, "by three")
	r := policy.Recommended("everyone", 3).Join("everyone", three)
	joined := rules(t, policy.TopicSource{Ban: r.Ban, Watch: r.Watch, Require: r.Require}, "alice", "bob", "carol", "dave")
	if e := w.Effect(joined); e.Begin+e.End+e.Watched+e.Unwatched != 0 {
		t.Errorf("a newcomer who joins: %+v", e)
	}
	if e := w.Effect(recommended(t, "alice", "bob", "carol", "dave")); e.Begin != 0 || e.End != 11 || len(e.Ends) != 10 || e.Ends[0].Topic != "sshd" {
		t.Errorf("a newcomer by hand: %+v", e)
	}
	w.wantBanned(14, "and nothing has changed")
	w.SetPolicy(joined)
	w.wantBanned(14, "with the newcomer")
}

// 99 of an honest peer's 2,824 bans were in force, then none of 4,700 for ten
// minutes, and status said nothing.
func TestAnHonestPeerUnderAttackKeepsCountingAndIsSeenToWait(t *testing.T) {
	w := newWorld(t, Options{Policy: recommended(t, "alice")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: many(0, 2824, day)}))
	w.wantBanned(2824, "its state")
	w.at(time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(100_000, 4700, day)}))
	b := w.Peers.Brakes()
	if len(b) != 1 || b[0].Brake.Allowed < 1100 || b[0].Brake.Allowed > 1200 || b[0].Brake.Added != b[0].Brake.Allowed || b[0].Brake.Since.IsZero() {
		t.Fatalf("brakes %+v", b)
	}
	counted := 2824 + b[0].Brake.Added
	w.wantBanned(counted, "ten of its usual hours")
	w.acts(many(104_699, 1, 0)[0].Target.String(), policy.Watch, "what waits")
	if b[0].Waiting != 2824+4700-counted || b[0].Brake.Over != b[0].Waiting || b[0].Budget.Live != counted || b[0].Budget.LiveMost != 20_000 {
		t.Errorf("brakes %+v", b)
	}
	w.at(2 * time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(200_000, 500, day)}))
	w.wantBanned(counted+500, "an hour later")
	n, err := w.Peers.Approve(op("alice"), "", 6*time.Hour)
	w.must(err)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(300_000, 4700, day)}))
	w.wantBanned(counted+500+n+4700, "for as long as it is approved")
}

// A lie about its basis buys an author twenty addresses a day.
func TestDecidedClaimsOfAddressesHaveABudget(t *testing.T) {
	w := newWorld(t, Options{Policy: recommended(t, "alice")})
	decided := many(0, 50, 30*day)
	for i := range decided {
		decided[i].Basis, decided[i].Hits = ban.BasisDecided, 0
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: decided}))
	w.wantBanned(20, "at once, also at a join")
	w.acts(decided[49].Target.String(), policy.Watch, "what waits")
	w.at(day + time.Minute)
	w.wantBanned(40, "a day later")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(1000, 100, 30*day)}))
	w.wantBanned(140, "a machine's claims do not wait behind them")
	// Looking for room costs nothing of the hour, and a restart gives none.
	for second := range 600 {
		w.at(day + 2*time.Minute + time.Duration(second)*time.Second)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: many(2000, 80, 30*day)}))
	w.wantBanned(220, "as many as the hour lets in")
	w.restart()
	all := slices.Concat(decided, many(1000, 100, 30*day), many(2000, 80, 30*day))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: all}))
	w.Expire(w.now)
	w.wantBanned(220, "after a restart")
}

func TestNoAnswerSaysShieldedAndBanned(t *testing.T) {
	w := newWorld(t, Options{Policy: recommended(t, "alice")})
	x := ban.MustTarget("9.0.0.1")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("9.0.0.1", day)}}))
	_, err := w.Exemptions.Unban(x, 7*day, "a mistake")
	w.must(err)
	if e := w.Explain(x); e.Shield == "" || e.Standings[0].Action != policy.Ignore {
		t.Errorf("after an unban: %+v", e)
	}
	w.at(time.Hour)
	w.must(w.Own.Ban(Local{Topic: "sshd", Source: SourceDetection, Claim: claim("9.0.0.1", day), At: w.now}))
	if e := w.Explain(x); e.Shield != "" || e.Standings[0].Action != policy.Ban || e.Standings[0].Why != policy.ReasonLocal {
		t.Errorf("banned here again: %+v", e)
	}
}

func TestAClaimThatItsAuthorWithdrewAsAMistakeIsExplained(t *testing.T) {
	w := newWorld(t, Options{Policy: recommended(t, "alice", "bob")})
	x := ban.MustTarget("9.0.0.1")
	for _, n := range []string{"alice", "bob"} {
		w.must(w.Peers.Apply(ban.Change{Feed: feed(n), Claims: []ban.Claim{claim("9.0.0.1", day)}}))
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonMistake, x)}))
	e := w.Explain(x)
	if len(e.Standings) != 1 || len(e.Standings[0].Claims) != 2 || e.Standings[0].Action != policy.Ban {
		t.Fatalf("%+v", e)
	}
	if c := e.Standings[0].Claims[1]; c.Feed != feed("alice") || c.WhyNot != policy.ReasonMistake || c.Counts() {
		t.Errorf("%+v", c)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Withdrawn: ban.Withdraw(ban.ReasonEnded, x)}))
	if s := w.Explain(x).Standings; len(s) != 1 || s[0].Action != policy.Ignore || s[0].Why != policy.ReasonMistake || len(s[0].Claims) != 1 {
		t.Errorf("%+v", s)
	}
	// Who says it again means it.
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("9.0.0.1", day)}}))
	if s := w.Explain(x).Standings; len(s) != 1 || s[0].Action != policy.Ban || len(s[0].Claims) != 1 {
		t.Errorf("%+v", s)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonMistake, x)}))
	w.at(day)
	if s := w.Explain(x).Standings; len(s) != 0 {
		t.Errorf("after its end: %+v", s)
	}
	// However many there are, some are kept.
	lists := many(0, maxMistakes+10, day)
	w.now = t0
	var m mistakes
	for _, c := range lists {
		m.note(mistake{claim: c})
	}
	if len(m.list) != maxMistakes || m.list[9].claim.Target != lists[maxMistakes+9].Target || m.list[10].claim.Target != lists[10].Target {
		t.Errorf("%d are kept", len(m.list))
	}
}

// Each other node of this operator has a budget of its own; the nodes of a peer
// share one.
func TestABudgetIsANodesWithinTheOwnOperatorAndAnOperatorsElsewhere(t *testing.T) {
	l := policy.LimitsSource{PerHour: ptr(10), Turnover: ptr(1)}
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice", Watch: "any of alice", Accept: true, Limits: &l}, "alice").As(op("me"))})
	say := func(o string, n, from int) {
		t.Helper()
		w.must(w.Peers.Apply(ban.Change{Feed: node(o, n), Claims: many(from, 30, day)}))
	}
	say("alice", 1, 0)
	say("alice", 2, 1000)
	w.wantBanned(10, "by two nodes of a peer")
	say("me", 1, 2000)
	w.wantBanned(20, "and one of ours")
	say("me", 2, 3000)
	w.wantBanned(30, "and another of ours")
	w.acts(many(3029, 1, 0)[0].Target.String(), policy.Watch, "beyond its budget")
	if b := w.Peers.Brakes(); len(b) != 3 || b[0].Operator != op("alice") || b[0].Waiting != 50 || b[1].Waiting != 20 || b[1].Node == b[2].Node {
		t.Errorf("%+v", b)
	}
	w.must(w.Close())
	w.restart()
	for n, from := range map[int]int{1: 2000, 2: 3000} {
		w.must(w.Peers.Apply(ban.Change{Feed: node("me", n), Reset: true, Claims: many(from, 30, day)}))
	}
	w.wantBanned(20, "after a restart")
	// A ban of both uses room with each, and one of them ending gives back its own.
	w.must(w.Peers.Apply(ban.Change{Feed: node("me", 1), Reset: true}))
	w.must(w.Peers.Apply(ban.Change{Feed: node("me", 2), Reset: true}))
	for _, b := range w.Peers.Brakes() {
		if b.Budget.Live != 0 {
			t.Errorf("%+v", b)
		}
	}
}
