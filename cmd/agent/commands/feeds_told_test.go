package commands

import (
	"bytes"
	"regexp"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/federation"
)

// A feed is told with the time as of which that is so.
func TestAFeedIsToldWithTheTimeItIsAsOf(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		status string
		issued time.Time
		want   string
	}{
		{federation.StatusSynced, now.Add(-3 * time.Minute), `sshd +alice +synced +3 min ago `},
		{federation.StatusSynced, now.Add(5 * time.Second), `sshd +alice +synced +5 s ahead `}, // the author's clock is
		{federation.StatusCutOff, now.Add(-2 * time.Hour), `sshd +alice +cut-off +2 h ago `},
		{federation.StatusUnanswered, now.Add(-9 * time.Second), `sshd +alice +unanswered +9 s ago `},
		{federation.StatusUnseen, time.Time{}, `sshd +alice +unseen +never `},
	} {
		var b bytes.Buffer
		feed := control.Feed{Topic: ban.Topic("sshd"), Name: "alice", Node: "j32sqseprwfuiwsa", Status: c.status, Batch: 7, Newest: 7, Claims: 3, Issued: c.issued}
		if err := printFeeds(cli.Wide(&b), []control.Feed{feed}, now); err != nil || !regexp.MustCompile(c.want).MatchString(b.String()) {
			t.Errorf("%s: %v\n%s", c.status, err, b.String())
		}
	}
}
