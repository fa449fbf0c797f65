package detect

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// An attack for which both this agent and a fail2ban beside it ban counts once
// for who is banned again and again, in whatever order the two logs are read.
func TestABanOfBothProgramsCountsOnceAsRecidive(t *testing.T) {
	dir := t.TempDir()
	auth, theirs := filepath.Join(dir, "auth.log"), filepath.Join(dir, "fail2ban.log")
	start := time.Now().Add(-8 * time.Hour).Truncate(time.Second)
	line := func(target string, at time.Time) string {
		return fmt.Sprintf("%s,123 fail2ban.actions        [4711]: NOTICE  [sshd] Ban %s\n", at.Format(time.DateTime), target)
	}
	again := recidive(t)
	again.Detect.Files = []string{theirs}
	var got decisions
	now := start
	o := Options{Jails: []Jail{{Definition: sshd(t, auth)}, {Definition: again}}, Ban: got.ban, StatePath: filepath.Join(dir, "state"), Now: func() time.Time { return now }}
	for round := range 3 {
		at := start.Add(time.Duration(round) * 2 * time.Hour)
		now = at.Add(time.Minute)
		if round < 2 {
			write(t, auth, failures(15, "192.0.2.1", at))
			write(t, theirs, line("192.0.2.1", at.Add(20*time.Second)))
		}
		write(t, theirs, line("192.0.2.2", at)) // fail2ban alone, three times
		readOnce(t, o)
	}
	for _, v := range got.all() {
		if v.Topic == "recidive" && v.Target == ban.MustTarget("192.0.2.1") {
			t.Errorf("two attacks counted as three: %+v", v)
		}
		if v.Topic == "recidive" && v.Target == ban.MustTarget("192.0.2.2") {
			return
		}
	}
	t.Errorf("three bans of fail2ban's alone are not counted: %+v", got.all())
}
