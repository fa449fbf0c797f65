package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// Forty lines of one address at one moment are one ban with the hits and the end
// of the line that banned, and nobody banned again and again, however bans are
// enforced.
func TestManyLinesAtOneMomentAreOneBan(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"enforced":       "",
		"topic observed": "observe = true\n",
		"mode off":       "[firewall]\nmode = \"off\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "auth.log")
			at := time.Now().Truncate(time.Second)
			var lines strings.Builder
			for i := range 40 {
				fmt.Fprintf(&lines, "%s host sshd[%d]: Failed password for root from 45.1.1.1 port %d ssh2\n", at.Format(time.RFC3339), 99+i, 5000+i)
			}
			if err := os.WriteFile(log, []byte(lines.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, fmt.Sprintf("[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.recidive]\ndetect = true\n[topics.sshd]\ndetect = true\ncorroborate = \"off\"\nfiles = [%q]\njournal = []\n%s", log, config))
			var jail control.JailStatus
			n.eventually("every line is read", func() bool {
				err := n.client.Get(t.Context(), "/v1/jail", map[string][]string{"topic": {"sshd"}}, &jail)
				return err == nil && jail.TotalFailed == 40
			})
			if jail.TotalBanned != 1 {
				t.Errorf("%d bans are counted", jail.TotalBanned)
			}
			var bans []control.Ban
			if err := n.client.Get(t.Context(), "/v1/bans", nil, &bans); err != nil || len(bans) != 1 {
				t.Fatalf("bans %+v, %v", bans, err)
			}
			if b := bans[0]; b.Target != ban.MustTarget("45.1.1.1") || b.Topic != "sshd" || b.Hits != 5 || !b.Until.Equal(at.Add(time.Hour)) {
				t.Errorf("banned: %+v, want five hits until %v", b, at.Add(time.Hour))
			}
		})
	}
}
