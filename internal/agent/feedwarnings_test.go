package agent

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
)

func codes(list []control.Warning) string {
	var out []string
	for _, w := range list {
		if w.Text == "" || w.Fix == "" {
			out = append(out, w.Code+" without words")
		}
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

func TestANodeIsWarnedBeforeNobodyBelievesIt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		is   certified
		want string
	}{
		{"well certified", certified{expires: now.Add(60 * day)}, ""},
		{"ends soon, renewed here", certified{root: true, expires: now.Add(5 * day)}, ""},
		{"ends soon, the root key is elsewhere", certified{expires: now.Add(20 * day)}, "certificate"},
		{"ended", certified{root: true, expires: now}, "certificate"},
		{"not certified", certified{}, "certificate"},
		{"revoked", certified{revoked: true}, "revoked"},
	} {
		if got := codes(c.is.warn(now)); got != c.want {
			t.Errorf("%s: warned of %q, want %q", c.name, got, c.want)
		}
	}
}

func TestFeedsThatAreNotWhatTheyShouldBeAreNamed(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	feed := func(own bool, status string, restarted time.Time) federation.FeedStatus {
		return federation.FeedStatus{Feed: ban.Feed{Topic: "sshd"}, Topic: "sshd", Name: "alice", Own: own, Status: status, Restarted: restarted}
	}
	for _, c := range []struct {
		name string
		feed federation.FeedStatus
		want string
	}{
		{"ours", feed(true, federation.StatusWriting, time.Time{}), ""},
		{"ours, cloned", feed(true, federation.StatusCloned, time.Time{}), "cloned"},
		{"ours, begun again", feed(true, federation.StatusWriting, now.Add(-time.Hour)), "feed-restarted"},
		{"ours, begun again long ago", feed(true, federation.StatusWriting, now.Add(-25*time.Hour)), ""},
		{"a peer's", feed(false, federation.StatusSynced, time.Time{}), ""},
		{"joining", feed(false, federation.StatusJoining, time.Time{}), ""},
		{"revoked by its operator", feed(false, federation.StatusRevoked, time.Time{}), ""},
		{"equivocating", feed(false, federation.StatusEquivocating, time.Time{}), "feed-equivocating"},
		{"contested", feed(false, federation.StatusContested, time.Time{}), "feed-contested"},
		{"stolen", feed(false, federation.StatusStolen, time.Time{}), "feed-stolen"},
		{"quarantined", feed(false, federation.StatusQuarantined, time.Time{}), "feed-quarantined"},
		{"withheld", feed(false, federation.StatusWithheld, time.Time{}), "feed-withheld"},
		{"stale", feed(false, federation.StatusStale, time.Time{}), "feed-stale"},
		{"too large", feed(false, federation.StatusTooLarge, time.Time{}), "feed-too-large"},
		{"uncertified", feed(false, federation.StatusUncertified, time.Time{}), "feed-uncertified"},
	} {
		if got := codes(warnFeeds([]federation.FeedStatus{c.feed}, now)); got != c.want {
			t.Errorf("%s: warned of %q, want %q", c.name, got, c.want)
		}
	}
}

func TestANewKeyThatTheNodeMadeItselfIsTold(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	node, other := ban.Node{1}, ban.Node{2}
	for _, c := range []struct {
		name string
		last federation.Rekeying
		want string
	}{
		{"just now", federation.Rekeying{Node: node, At: now}, "key-replaced"},
		{"long ago", federation.Rekeying{Node: node, At: now.Add(-rekeyedNotice)}, ""},
		{"and a person made another one", federation.Rekeying{Node: other, At: now}, ""},
	} {
		if got := codes(warnRekeyed(c.last, node, now)); got != c.want {
			t.Errorf("%s: warned of %q, want %q", c.name, got, c.want)
		}
	}
}
