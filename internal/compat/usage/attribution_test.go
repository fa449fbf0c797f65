package usage

import (
	"slices"
	"testing"
	"time"
)

// Traffic that is reported for several operators' bans together is divided by
// how many of them are whose; the node's own part is nobody else's.
func TestTrafficOfManyIsDividedByTheirBans(t *testing.T) {
	t.Parallel()
	var now time.Duration
	bans := []Ban{
		{"sshd", "alice", false},
		{"sshd", "alice", false},
		{"sshd", "alice", false},
		{"sshd", "list:drop", false},
		{"nginx", "list:drop", false},
		{"nginx", "here", true},
	}
	a := &Attribution{Bans: func(yield func(Ban) bool) { slices.Values(bans)(yield) }, Elapsed: func() time.Duration { return now }}
	network := func(b Ban) bool { return !b.Here }
	a.Add(Dropped{Packets: 60, Requests: 40, Bytes: 1 << 20}, network) // 3 of 5, 2 of 5
	a.Add(Dropped{Requests: 8}, func(b Ban) bool { return b.Topic == "nginx" })
	a.Add(Dropped{Requests: 8}, func(b Ban) bool { return b.Topic == "none" })
	if alice, list, here := a.Of("alice"), a.Of("list:drop"), a.Of("here"); alice != 60 || list != 44 || here != 0 {
		t.Errorf("%d %d %d", alice, list, here)
	}
	bans = bans[:1]
	a.Add(Dropped{Requests: 10}, network) // counted lately
	now = countFor
	a.Add(Dropped{Requests: 10}, network)
	if alice, list := a.Of("alice"), a.Of("list:drop"); alice != 76 || list != 48 {
		t.Errorf("%d %d", alice, list)
	}
}
