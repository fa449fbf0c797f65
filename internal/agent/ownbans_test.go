package agent

import (
	"errors"
	"net/netip"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// addresses gives n addresses from 45.0.0.0 on.
func addresses(t *testing.T, n int) []ban.Target {
	t.Helper()
	list := make([]ban.Target, n)
	for i := range list {
		var err error
		if list[i], err = ban.TargetOfAddr(netip.AddrFrom4([4]byte{45, byte(i >> 16), byte(i >> 8), byte(i)})); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func TestALongListIsBannedAndUnbannedInOneStepEach(t *testing.T) {
	n := newNode(t, quiet)
	targets := addresses(t, control.MaxBulk)
	var q control.BanAllRequest
	for _, x := range targets {
		q.Bans = append(q.Bans, control.BanRequest{Target: x, Topic: "sshd", For: 3600})
	}
	// Two of the list cannot be banned; the others are.
	q.Bans[3].Target = ban.MustTarget("127.0.0.1")
	q.Bans[4].Topic = "nonsense"
	var a control.BanAllAnswer
	n.post("/v1/bans/all", q, &a)
	if a.Banned != control.MaxBulk-2 || len(a.Refused) != 2 {
		t.Fatalf("banned %d, refused %d", a.Banned, len(a.Refused))
	}
	for _, x := range a.Refused {
		want := control.CodeRefused
		if x.Topic == "nonsense" {
			want = control.CodeMissing
		}
		if x.Code != want || x.Error == "" || x.Hint == "" {
			t.Errorf("refused with %+v", x)
		}
	}
	var s control.Status
	n.restart()
	if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil || s.Bans != control.MaxBulk-2 {
		t.Fatalf("after a restart %d bans, %v", s.Bans, err)
	}
	var u control.UnbanAnswer
	n.post("/v1/unban", control.UnbanRequest{Targets: targets, Topic: "sshd"}, &u)
	if len(u.Lifted) != control.MaxBulk-2 || u.Exempt.IsZero() {
		t.Errorf("lifted %d until %v", len(u.Lifted), u.Exempt)
	}
	if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil || s.Bans != 0 {
		t.Errorf("%d bans are left, %v", s.Bans, err)
	}
	// One more than the limit is refused whole.
	q.Bans = append(q.Bans, q.Bans[0])
	for path, body := range map[string]any{
		"/v1/bans/all": q, "/v1/unban": control.UnbanRequest{Targets: append(targets, targets[0])},
	} {
		err := n.client.Post(t.Context(), path, body, nil)
		if no, ok := errors.AsType[*control.RefusedError](err); !ok || no.Code != control.CodeBad {
			t.Errorf("%s beyond the limit: %v", path, err)
		}
	}
}
