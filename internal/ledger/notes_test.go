package ledger

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

func TestPeersStrikesHoldsMistakesAndDisputesAreNoted(t *testing.T) {
	var kinds []NoteKind
	hour := 1
	p := rules(t, policy.TopicSource{Ban: "any of alice", Limits: &policy.LimitsSource{PerHour: &hour, Turnover: &hour}}, "alice", "bob")
	w := newWorld(t, Options{Policy: p, NeverBan: never{netip.MustParsePrefix("198.51.100.9/32")}, Noted: func(n Note) { kinds = append(kinds, n.Kind) }})
	noted := func(when string, want ...NoteKind) {
		t.Helper()
		if !slices.Equal(kinds, want) {
			t.Errorf("%s: noted %v, want %v", when, kinds, want)
		}
		kinds = nil
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("198.51.100.1", time.Hour)}}))
	noted("a join")
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.9", time.Hour)}}))
	noted("a claim of never-ban", NoteStrike)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.2", time.Hour), claim("198.51.100.3", time.Hour), claim("198.51.100.4", time.Hour)}}))
	noted("more than an hour's claims, noted once", NoteHold)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Withdrawn: ban.Withdraw(ban.ReasonMistake, ban.MustTarget("198.51.100.1"))}))
	noted("a mistake", NoteMistake)

	w.must(w.BanLocal("sshd", claim("203.0.113.7", time.Hour), Evidence{}))
	d := []Dispute{{ban.MustTarget("203.0.113.7"), t0.Add(time.Hour)}, {ban.MustTarget("203.0.113.8"), t0.Add(time.Hour)}}
	w.must(w.Peers.Dispute(feed("bob"), d))
	noted("a dispute of a claim, and one of none", NoteDispute)
	w.must(w.Peers.Dispute(feed("bob"), d))
	noted("the same again")
	list := w.Peers.DisputedOwn()
	if len(list) != 1 || list[0].Target != d[0].Target || list[0].Operator != op("bob") {
		t.Errorf("disputed: %+v", list)
	}
	if e := w.Explain(d[0].Target); len(e.Standings) != 1 || len(e.Standings[0].Disputes) != 1 {
		t.Errorf("explain: %+v", e.Standings)
	}
	w.now = t0.Add(2 * time.Hour)
	if list := w.Peers.DisputedOwn(); len(list) != 0 {
		t.Errorf("a dispute that is over: %+v", list)
	}
}

// A change says how the ban before it stood, and a ban's end why it is none.
func TestAChangeSaysHowTheBanBeforeItStood(t *testing.T) {
	w := newWorld(t, Options{Policy: rules(t, policy.TopicSource{Ban: "any of alice"}, "alice")})
	w.Enforcement.Desired()
	take := func() Change {
		t.Helper()
		list := w.Enforcement.Take(10)
		if len(list) != 1 {
			t.Fatalf("%+v", list)
		}
		return list[0]
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.1", time.Hour)}}))
	if c := take(); !c.Ban || !c.Was.IsZero() || c.Why != policy.ReasonQuorum {
		t.Errorf("it begins: %+v", c)
	}
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Claims: []ban.Claim{claim("198.51.100.1", 2*time.Hour)}}))
	if c := take(); !c.Ban || !c.Was.Equal(t0.Add(time.Hour)) {
		t.Errorf("it is longer: %+v", c)
	}
	_, err := w.Exemptions.Unban(ban.MustTarget("198.51.100.1"), 0, "")
	w.must(err)
	if c := take(); c.Ban || !c.Was.Equal(t0.Add(2*time.Hour)) || c.Why != policy.ReasonExempt {
		t.Errorf("a person lifts it: %+v", c)
	}
}
