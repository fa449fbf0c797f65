package agent

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// Two tries of one address ban nobody; where a person asked for it they are
// told as weak evidence, and nowhere else.
func TestTooFewFailuresAreToldWhereAPersonAskedForIt(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprint("share_weak ", shared), func(t *testing.T) {
			log := newLog(t)
			n := newNode(t, detecting("sshd", log, fmt.Sprintf("publish = true\nshare_weak = %t\n", shared)))
			n.fails(log, 2, "45.1.1.1")
			n.fails(log, 5, "45.1.1.2")
			// Lines of nobody's connection are no sighting, either.
			log.says("web sshd[7]: Failed password for root from 45.1.1.3 port 99 ssh2")
			var claims []ban.Claim
			n.eventually("the offender is told, and what was seen of the other", func() bool {
				claims = n.a.ledger.Own.Claims("sshd")
				return len(claims) == 2 || len(claims) == 1 && !shared
			})
			if !shared {
				// Sightings came first in the log, and is kept two seconds at most.
				<-time.After(2 * sightEvery)
				claims = n.a.ledger.Own.Claims("sshd")
			}
			if n.drops("45.1.1.1") || !n.drops("45.1.1.2") {
				t.Error("two failures banned, or five did not")
			}
			for _, c := range claims {
				if c.Target != ban.MustTarget("45.1.1.1") {
					continue
				}
				if !shared || c.Basis != ban.BasisWeak || c.Hits != 2 {
					t.Errorf("with share_weak = %t the feed says %+v", shared, c)
				}
			}
			if want := map[bool]int{true: 2, false: 1}[shared]; len(claims) != want {
				t.Errorf("%d claims are told, want %d", len(claims), want)
			}
		})
	}
}
