package ledger

import (
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// told gives this node's own claims as its feed says them, with their ends from
// the test's beginning.
func (w *world) told() (list []string) {
	for _, c := range w.Own.Claims("sshd") {
		list = append(list, c.Target.String()+" "+c.Basis.String()+" "+c.End.Sub(t0).String())
	}
	return list
}

func (w *world) wantTold(want ...string) {
	w.t.Helper()
	if got := w.told(); !slices.Equal(got, want) {
		w.t.Errorf("at %v the feed says %q, want %q", w.now.Sub(t0), got, want)
	}
}

func TestStrongEvidenceIsToldForAsLongAsItCounts(t *testing.T) {
	w := newWorld(t, Options{})
	byHand := claim("192.0.2.3", 2*time.Hour)
	byHand.Basis = ban.BasisDecided
	handed := claim("192.0.2.4", time.Hour)
	handed.Basis = ban.BasisHandedOver
	for _, b := range []Local{
		{Claim: claim("192.0.2.1", time.Hour)},
		{Claim: claim("192.0.2.2", 100*time.Hour)},
		{Claim: byHand, Source: SourceHand},
		{Claim: handed, Source: SourceFail2ban},
	} {
		b.Topic = "sshd"
		w.must(w.Own.Ban(b))
	}
	all := []string{"192.0.2.1 strong 72h0m0s", "192.0.2.2 strong 100h0m0s", "192.0.2.3 decided 2h0m0s", "192.0.2.4 handed-over 1h0m0s"}
	w.wantTold(all...)
	w.wantDesired("sshd 192.0.2.1 1h0m0s", "sshd 192.0.2.2 100h0m0s", "sshd 192.0.2.3 2h0m0s", "sshd 192.0.2.4 1h0m0s")
	w.Own.Take()

	w.now = t0.Add(3 * time.Hour)
	w.Expire(w.now)
	for range 2 { // the second time after a kill
		w.wantDesired("sshd 192.0.2.2 100h0m0s")
		w.wantTold(all[:2]...)
		w.restart()
	}
	s, ok := w.Standing("sshd", ban.MustTarget("192.0.2.1"))
	if !ok || s.Action != policy.Ignore || s.Why != policy.ReasonTold || len(s.Claims) != 1 || s.Claims[0].Counts() || !s.Claims[0].End.Equal(t0.Add(claimsCount)) {
		t.Errorf("after its ban the target stands as %+v", s)
	}
	if changes := w.Own.Take(); len(changes) != 0 {
		t.Errorf("an end is no change: %+v", changes)
	}
	w.now = t0.Add(claimsCount)
	w.Expire(w.now)
	w.wantTold(all[1])
	w.restart()
	w.wantTold(all[1])
}

func TestAnOffenderWhoComesBackIsBannedForItsNewBan(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.BanLocal("sshd", claim("192.0.2.1", time.Hour), Evidence{}))
	w.now = t0.Add(3 * time.Hour)
	w.Expire(w.now)
	w.wantDesired()
	w.must(w.BanLocal("sshd", claim("192.0.2.1", 4*time.Hour), Evidence{}))
	w.wantDesired("sshd 192.0.2.1 4h0m0s")
	w.wantTold("192.0.2.1 strong 75h0m0s")
}

func TestWhatIsToldAfterTheBanIsWithdrawnToo(t *testing.T) {
	for name, end := range map[string]func(w *world) error{
		"withdraw": func(w *world) error {
			_, err := w.Own.Withdraw(Selection{Targets: []ban.Target{ban.MustTarget("192.0.2.1")}}, ban.ReasonMistake)
			return err
		},
		"unban": func(w *world) error { _, err := w.Exemptions.Unban(ban.MustTarget("192.0.2.1"), 0, ""); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.must(w.BanLocal("sshd", claim("192.0.2.1", time.Hour), Evidence{}))
			w.Own.Take()
			w.now = t0.Add(3 * time.Hour)
			w.Expire(w.now)
			w.must(end(w))
			changes := w.Own.Take()
			if len(changes) != 1 || len(changes[0].Withdrawn) != 1 || changes[0].Withdrawn[0].Reason != ban.ReasonMistake {
				t.Errorf("readers are told %+v", changes)
			}
			w.wantTold()
			w.restart()
			w.wantTold()
		})
	}
}
