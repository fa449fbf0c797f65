package agent

import (
	"fmt"
	"os"
	"path/filepath"
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
			log := filepath.Join(t.TempDir(), "auth.log")
			lines, at := "", time.Now().Truncate(time.Second)
			for i := range 2 {
				lines += fmt.Sprintf("%s host sshd[%d]: Failed password for root from 45.1.1.1 port %d ssh2\n", at.Format(time.RFC3339), 99+i, 5000+i)
			}
			for i := range 5 {
				lines += fmt.Sprintf("%s host sshd[%d]: Failed password for root from 45.1.1.2 port %d ssh2\n", at.Format(time.RFC3339), 199+i, 6000+i)
			}
			if err := os.WriteFile(log, []byte(lines), 0o600); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, fmt.Sprintf("[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\ndetect = true\npublish = true\nshare_weak = %t\ncorroborate = \"off\"\nfiles = [%q]\njournal = []\n", shared, log))
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
