package commands

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// Nothing is called banned that passes.
func TestABanOfAnObservedTopicIsNotCalledOne(t *testing.T) {
	t.Parallel()
	now, target := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), ban.MustTarget("203.0.113.7")
	x := control.Explanation{Target: target, Standings: []control.Standing{{
		Topic: "sshd", Target: target, Action: control.ActionBan, Sentence: "this node banned it", Until: now.Add(time.Hour), Observed: true,
	}}}
	var b strings.Builder
	printExplanation(cli.Wide(&b), x, now)
	if got := b.String(); strings.Contains(got, "is banned") || !strings.HasPrefix(got, "203.0.113.7 would be banned in sshd until ") ||
		!strings.Contains(got, ", for 1 h more; the topic is observed: nothing is refused\n") {
		t.Errorf("explain prints\n%s", got)
	}
}
