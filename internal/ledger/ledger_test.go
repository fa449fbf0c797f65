package ledger

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func op(name string) ban.Operator { return ban.OperatorOf([]byte(name)) }

func feed(name string) ban.Feed {
	return ban.Feed{Topic: "sshd", Operator: op(name), Node: ban.NodeOf([]byte(name))}
}

func claim(target string, d time.Duration) ban.Claim {
	return ban.Claim{Target: ban.MustTarget(target), End: t0.Add(d), Class: ban.ClassAuth, Hits: 5, Established: true, Basis: ban.BasisStrong}
}

func rules(t testing.TB, topic policy.TopicSource, names ...string) *policy.Policy {
	t.Helper()
	s := policy.Source{Operators: map[string]policy.OperatorSource{}, Topics: map[string]policy.TopicSource{"sshd": topic}}
	for _, n := range names {
		s.Operators[n] = policy.OperatorSource{ID: op(n).String()}
	}
	p, err := policy.Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// world is a ledger with a clock that the test moves, and that can be killed.
type world struct {
	*Ledger
	t    testing.TB
	path string
	now  time.Time
	o    Options
}

func newWorld(t testing.TB, o Options) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "state"), now: t0, o: o}
	w.open()
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := store.Open(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.o.Store, w.o.Now = s, func() time.Time { return w.now }
	if w.Ledger, err = Open(w.o); err != nil {
		w.t.Fatal(err)
	}
}

// restart forgets everything that is not on disk.
func (w *world) restart() {
	w.t.Helper()
	w.store.Close()
	w.open()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// desired gives the desired state as "topic target seconds-from-t0".
func (w *world) desired() []string {
	var list []string
	for _, e := range w.Enforcement.Desired() {
		list = append(list, string(e.Topic)+" "+e.Target.String()+" "+e.Until.Sub(t0).String())
	}
	slices.Sort(list)
	return list
}

func (w *world) wantDesired(want ...string) {
	w.t.Helper()
	if got := w.desired(); !slices.Equal(got, want) {
		w.t.Errorf("desired %q, want %q", got, want)
	}
}

func TestOwnBansSurviveAKill(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{By: "sshd", Sample: "Failed password"}))
	w.must(w.BanLocal("sshd", claim("2001:db8:1::/64", 2*time.Hour), Evidence{}))
	w.must(w.BanLocal("denied", claim("0xABcdEFABcdEFabcdEfAbCdefabcdeFABcDEFabCD", 3*time.Hour), Evidence{}))
	w.must(w.BanLocal("sshd", claim("203.0.113.0/24", time.Hour), Evidence{}))
	want := []string{
		"denied 0xABcdEFABcdEFabcdEfAbCdefabcdeFABcDEFabCD 3h0m0s",
		"sshd 198.51.100.1 1h0m0s", "sshd 2001:db8:1::/64 2h0m0s", "sshd 203.0.113.0/24 1h0m0s",
	}
	w.wantDesired(want...)
	own := w.Own.Claims("sshd")
	w.restart()
	w.wantDesired(want...)
	if got := w.Own.Claims("sshd"); !slices.Equal(got, own) || len(own) != 3 {
		t.Errorf("own claims %v became %v", own, got)
	}
	if e := w.Explain(ban.MustTarget("198.51.100.1")); len(e.Standings) != 1 || e.Standings[0].Claims[0].Evidence.Sample != "Failed password" {
		t.Errorf("the evidence is lost: %+v", e)
	}
}

func TestALedgerThatLoadsAnswersAsOneThatDoesNot(t *testing.T) {
	p := rules(t, policy.TopicSource{Ban: "2 of everyone", Watch: "any of everyone", Prefix: []string{"v4/24"}}, "alice", "bob")
	w := newWorld(t, Options{Policy: p, NeverBan: never{netip.MustParsePrefix("198.51.100.9/32")}})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	_, err := w.Exemptions.Unban(ban.MustTarget("198.51.100.2"), 0, "")
	w.must(err)
	replay := func() {
		for _, name := range []string{"alice", "bob"} {
			w.must(w.Peers.Apply(ban.Change{Feed: feed(name), Reset: true, Claims: []ban.Claim{
				claim("198.51.100.2", time.Hour), claim("198.51.100.3", 2*time.Hour), claim("198.51.100.9", time.Hour), claim("203.0.113.0/24", time.Hour),
			}}))
		}
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.4", time.Hour), claim("198.51.100.5", time.Hour)}}))
		w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonEnded, ban.MustTarget("198.51.100.5"))}))
	}
	replay()
	want := w.desired()
	if len(want) != 3 {
		t.Fatalf("the test does not test: %q", want)
	}
	w.o.Loading = true
	w.restart()
	replay()
	w.SetPolicy(p)
	w.Loaded()
	w.wantDesired(want...)
	if !w.Watched("sshd", ban.MustTarget("198.51.100.4")) || w.Watched("sshd", ban.MustTarget("198.51.100.5")) {
		t.Error("what is watched is another")
	}
	if s := w.Stats(); s.Targets != 6 {
		t.Errorf("%+v: what nobody claims any longer is kept", s)
	}
	w.now = t0.Add(claimsCount + time.Hour)
	w.Expire(w.now)
	w.wantDesired()
	if s := w.Stats(); s.Targets != 0 {
		t.Errorf("%+v after everything ended", s)
	}
}

func TestABanIsOnlyEverLengthened(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", 2*time.Hour), Evidence{}))
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	w.wantDesired("sshd 198.51.100.1 2h0m0s")
	w.restart()
	w.wantDesired("sshd 198.51.100.1 2h0m0s")
}

func TestAnUnbanBeatsPeersAndSurvivesAKill(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice"}, "alice")})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	join := ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("198.51.100.1", 3*time.Hour), claim("198.51.100.2", 3*time.Hour)}}
	w.must(w.Peers.Apply(join))
	w.wantDesired("sshd 198.51.100.1 3h0m0s", "sshd 198.51.100.2 3h0m0s")
	lifted, err := w.Exemptions.Unban(ban.MustTarget("198.51.100.1"), 0, "it was me")
	w.must(err)
	if len(lifted) != 1 {
		t.Errorf("lifted %v, want the own ban", lifted)
	}
	if got := w.Enforcement.Take(10); len(got) != 1 || got[0].Ban {
		t.Errorf("enforcers heard %v, want one removal", got)
	}
	w.wantDesired("sshd 198.51.100.2 3h0m0s")
	w.restart()
	w.must(w.Peers.Apply(join))
	w.wantDesired("sshd 198.51.100.2 3h0m0s")
	if e := w.Explain(ban.MustTarget("198.51.100.1")); e.Standings[0].Why != policy.ReasonExempt || e.Shield == "" {
		t.Errorf("explain says %+v", e)
	}
	// A new offence here is newer than the unban.
	w.now = t0.Add(time.Second)
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	w.wantDesired("sshd 198.51.100.1 1h0m0s", "sshd 198.51.100.2 3h0m0s")
	// The exemption ends.
	w.now = t0.Add(2 * time.Hour)
	_, err = w.Exemptions.Unban(ban.MustTarget("198.51.100.1"), 10*time.Minute, "")
	w.must(err)
	w.wantDesired("sshd 198.51.100.2 3h0m0s")
	w.now = t0.Add(2*time.Hour + 11*time.Minute)
	w.Expire(w.now)
	w.wantDesired("sshd 198.51.100.1 3h0m0s", "sshd 198.51.100.2 3h0m0s")
}

func TestAnUnbanOfOneTopicLeavesTheOthersAlone(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of everyone"}, "alice")})
	w.must(w.BanLocal("sshd", claim("9.1.1.1", time.Hour), Evidence{}))
	w.must(w.BanLocal("mail", claim("9.1.1.1", time.Hour), Evidence{}))
	lifted, err := w.Exemptions.Add([]Exemption{{Target: ban.MustTarget("9.1.1.1"), Topic: "mail", Dispute: true}}, 2*time.Hour)
	if w.must(err); len(lifted) != 1 || lifted[0].Topic != "mail" {
		t.Errorf("lifted %+v", lifted)
	}
	if w.Action("sshd", ban.MustTarget("9.1.1.1")) != policy.Ban || w.Action("mail", ban.MustTarget("9.1.1.1")) == policy.Ban {
		t.Error("it is not lifted in the one topic alone")
	}
	// A peer cannot bring it back there, over a restart neither, and can here.
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("9.1.1.1", 3*time.Hour), claim("9.1.1.2", 3*time.Hour)}}))
	w.restart()
	list := w.Exemptions.List()
	if len(list) != 1 || list[0].Topic != "mail" || !list[0].Dispute {
		t.Errorf("exemptions %+v", list)
	}
	if _, ok := w.exempt.exempt("mail").Protects(ban.MustTarget("9.1.1.1")); !ok {
		t.Error("nothing shields it in the topic")
	}
	if _, ok := w.exempt.exempt("sshd").Protects(ban.MustTarget("9.1.1.1")); ok {
		t.Error("it is shielded in another topic")
	}
	w.must(w.Exemptions.Remove(ban.MustTarget("9.1.1.1"), false))
	if len(w.Exemptions.List()) != 0 {
		t.Error("it is still there")
	}
}

func TestAllowIsRetroactiveAndRefusesLocalBans(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice", Prefix: []string{"v4/24"}}, "alice")})
	w.must(w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.0/24", time.Hour), claim("203.0.113.9", time.Hour)}}))
	_, err := w.Exemptions.Allow(ban.MustTarget("198.51.100.1"), time.Time{}, "office")
	w.must(err)
	// A wider ban that contains the allowed address is not enforced either.
	w.wantDesired("sshd 203.0.113.9 1h0m0s")
	if err := w.BanLocal("sshd", claim("198.51.100.1", time.Hour), Evidence{}); !errors.Is(err, ErrAllowed) {
		t.Errorf("banning an allowed target: %v", err)
	}
	w.must(w.Exemptions.Remove(ban.MustTarget("198.51.100.1"), true))
	w.wantDesired("sshd 198.51.100.0/24 1h0m0s", "sshd 203.0.113.9 1h0m0s")
	if err := w.Exemptions.Remove(ban.MustTarget("198.51.100.1"), true); !errors.Is(err, ErrUnknown) {
		t.Errorf("removing what is not there: %v", err)
	}
}

func ptr(n int) *int { return &n }

type never []netip.Prefix

func (n never) Protects(t ban.Target) (string, bool) {
	p, ok := t.Prefix()
	for _, q := range n {
		if ok && q.Overlaps(p) {
			return "never " + q.String(), true
		}
	}
	return "", false
}

func TestNeverBanBeatsEveryone(t *testing.T) {
	w := newWorld(t, Options{
		Policy:   rules(t, policy.TopicSource{Ban: "any of alice", Prefix: []string{"v4/8"}, Limits: &policy.LimitsSource{Addresses: ptr(1 << 25)}}, "alice"),
		NeverBan: never{netip.MustParsePrefix("198.51.100.1/32")},
	})
	if err := w.BanLocal("sshd", claim("198.51.100.0/24", time.Hour), Evidence{}); !errors.Is(err, ErrNeverBan) {
		t.Errorf("banning around the gateway: %v", err)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.1", time.Hour), claim("198.0.0.0/8", time.Hour), claim("203.0.113.1", time.Hour)}}))
	w.must(w.BanLocal("sshd", claim("192.0.2.5", time.Hour), Evidence{}))
	w.wantDesired("sshd 192.0.2.5 1h0m0s", "sshd 203.0.113.1 1h0m0s")
	w.SetNeverBan(never{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("192.0.2.5/32")}, nil)
	w.wantDesired("sshd 198.0.0.0/8 1h0m0s", "sshd 198.51.100.1 1h0m0s")
}

func TestAResetReplacesAndAWithdrawalLifts(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice, bob"}, "alice", "bob")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("192.0.2.1", time.Hour), claim("192.0.2.2", time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: []ban.Claim{claim("192.0.2.2", 2*time.Hour)}}))
	w.Enforcement.Desired()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("192.0.2.3", time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Withdrawn: ban.Withdraw(ban.ReasonEnded, ban.MustTarget("192.0.2.2"))}))
	var heard []string
	for len(w.Enforcement.Changed()) > 0 {
		<-w.Enforcement.Changed()
		for _, c := range w.Enforcement.Take(1) {
			verb := "free "
			if c.Ban {
				verb = "ban "
			}
			heard = append(heard, verb+c.Target.String())
		}
	}
	slices.Sort(heard)
	if want := []string{"ban 192.0.2.3", "free 192.0.2.1", "free 192.0.2.2"}; !slices.Equal(heard, want) {
		t.Errorf("enforcers heard %q, want %q", heard, want)
	}
	if s := w.Stats(); s.Targets != 1 || s.Claims != 1 || s.Banned != 1 {
		t.Errorf("something is left over: %+v", s)
	}
}

func TestBansLapseOnTimeAndLeaveNothingBehind(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "2 of alice, bob", Watch: "any of alice, bob"}, "alice", "bob")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("192.0.2.1", time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: []ban.Claim{claim("192.0.2.1", 2*time.Hour)}}))
	w.must(w.BanLocal("sshd", claim("192.0.2.9", 90*time.Second), Evidence{}))
	w.wantDesired("sshd 192.0.2.1 1h0m0s", "sshd 192.0.2.9 1m30s")
	for _, step := range []struct {
		at      time.Duration
		banned  []string
		watched bool
	}{
		{91 * time.Second, []string{"sshd 192.0.2.1 1h0m0s"}, true},
		{time.Hour + 10*time.Second, nil, true},
		{2*time.Hour + 10*time.Second, nil, false},
	} {
		w.now = t0.Add(step.at)
		w.Expire(w.now)
		w.wantDesired(step.banned...)
		if got := w.Watched("sshd", ban.MustTarget("192.0.2.1")); got != step.watched {
			t.Errorf("at %v watched is %v", step.at, got)
		}
	}
	// Readers are told of this node's strong evidence for as long as it counts.
	w.now = t0.Add(claimsCount - time.Second)
	w.Expire(w.now)
	if s := w.Stats(); s.Targets != 1 || s.Claims != 1 || s.Own != 1 || s.Banned != 0 {
		t.Errorf("a second before nobody counts it: %+v", s)
	}
	w.now = t0.Add(claimsCount + time.Minute)
	w.Expire(w.now)
	if s := w.Stats(); s.Targets != 0 || s.Claims != 0 || s.Own != 0 {
		t.Errorf("something is left over: %+v", s)
	}
	if len(w.wheel.slots) != 0 {
		t.Errorf("%d slots are left", len(w.wheel.slots))
	}
}

func TestAPrefixCountsForWhatItContains(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "2 of alice, bob", Prefix: []string{"v4/24", "v6/48"}}, "alice", "bob")})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Claims: []ban.Claim{claim("192.0.2.1", time.Hour), claim("2001:db8:0:1::5", time.Hour)}}))
	w.wantDesired()
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("192.0.2.0/24", 2*time.Hour), claim("2001:db8:0:1::/64", 2*time.Hour)}}))
	w.wantDesired("sshd 192.0.2.1 1h0m0s", "sshd 2001:db8:0:1::5 1h0m0s")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonEnded, ban.MustTarget("192.0.2.0/24"), ban.MustTarget("2001:db8:0:1::/64"))}))
	w.wantDesired()
}

func TestOwnChangesTellTheFeedEverything(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice"}, "alice")})
	w.must(w.BanLocal("sshd", claim("192.0.2.1", time.Hour), Evidence{}))
	w.must(w.BanLocal("sshd", claim("192.0.2.2", time.Hour), Evidence{}))
	// Claims of peers are not ours to repeat.
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("192.0.2.3", time.Hour)}}))
	select {
	case <-w.Own.Changed():
	default:
		t.Error("nobody was woken")
	}
	if got := w.Own.Take(); len(got) != 1 || len(got[0].Claims) != 2 || len(got[0].Withdrawn) != 0 {
		t.Errorf("took %+v", got)
	}
	_, err := w.Exemptions.Unban(ban.MustTarget("192.0.2.2"), 0, "")
	w.must(err)
	if got := w.Own.Take(); len(got) != 1 || len(got[0].Claims) != 0 || !slices.Equal(got[0].Withdrawn, ban.Withdraw(ban.ReasonMistake, ban.MustTarget("192.0.2.2"))) {
		t.Errorf("took %+v", got)
	}
	if got := w.Own.Claims("sshd"); len(got) != 1 || got[0].Target != ban.MustTarget("192.0.2.1") {
		t.Errorf("own claims are %v", got)
	}
}
