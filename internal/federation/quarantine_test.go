package federation

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
)

// A peer that disputes more targets than anybody may is quarantined by name; the
// session goes on, others count, and so it is after a start, which reads the
// same message back.
func TestAttackADisputeOfTooManyTargets(t *testing.T) {
	t.Parallel()
	alice, carol, bob, l := judged(t, policy.TopicSource{Ban: "any of everyone"})
	if got := heard(t, alice, bob, l, "192.0.2.1"); len(got) != 1 {
		t.Fatalf("enforced: %v", got)
	}
	many := make([]ban.Claim, 10_001)
	for i := range many {
		many[i] = ban.Claim{Target: ban.MustTarget(fmt.Sprintf("11.0.%d.%d", i>>8, i&255)), End: time.Now().Add(time.Hour)}
	}
	if err := alice.s.Dispute("sshd", many); err != nil {
		t.Fatal(err)
	}
	quarantined := func() *ledger.Quarantine {
		for _, p := range l.Peers.List() {
			if p.Name == "alice" {
				return p.Quarantine
			}
		}
		return nil
	}
	await(t, "the quarantine", func() bool { return quarantined() != nil })
	if q := quarantined(); q.Reason != ledger.QuarantineDisputes || q.Feed != alice.feed("sshd").String() {
		t.Errorf("quarantined: %+v", q)
	}
	if got := heard(t, carol, bob, l, "192.0.2.7"); len(got) != 1 || got[0] != "192.0.2.7" {
		t.Errorf("enforced: %v", got)
	}
	bob.stop()
	commit, disputed := bob.s.o.Apply, bob.s.o.Disputed
	bob.open()
	bob.s.o.Apply, bob.s.o.Disputed = commit, disputed
	bob.s.Follow([]Following{{"sshd", alice.id.Operator()}, {"sshd", carol.id.Operator()}})
	if err := bob.s.Restore(t.Context()); err != nil {
		t.Fatalf("the start fails for the stored message: %v", err)
	}
	bob.run()
	if got := heard(t, carol, bob, l, "192.0.2.7", "192.0.2.8"); len(got) != 2 {
		t.Errorf("enforced after the start: %v", got)
	}
}
