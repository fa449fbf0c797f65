package agent

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
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
	t.Parallel()
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

// banned lists the targets in force, as the socket says.
func (n *node) banned() (list []string) {
	n.t.Helper()
	var bans []control.Ban
	if err := n.client.Get(n.t.Context(), "/v1/bans", nil, &bans); err != nil {
		n.t.Fatal(err)
	}
	for _, b := range bans {
		list = append(list, b.Target.String())
	}
	return list
}

func (n *node) wantBanned(want ...string) {
	n.t.Helper()
	if got := n.banned(); !slices.Equal(got, want) {
		n.t.Errorf("banned are %q, want %q", got, want)
	}
}

// A person's unban stands against a second import; a person, and a new offence,
// ban again.
func TestASecondImportBansNobodyWhoWasUnbanned(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	list := control.BanAllRequest{Bans: []control.BanRequest{
		{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600, By: "fail2ban"},
		{Target: ban.MustTarget("45.1.1.2"), Topic: "sshd", For: 3600, By: "fail2ban"},
	}}
	n.post("/v1/bans/all", list, nil)
	n.wantBanned("45.1.1.1", "45.1.1.2")
	n.post("/v1/unban", control.UnbanRequest{Target: ban.MustTarget("45.1.1.1")}, nil)
	n.restart()
	var a control.BanAllAnswer
	n.post("/v1/bans/all", list, &a)
	if a.Banned != 1 || len(a.Refused) != 1 || a.Refused[0].Target != ban.MustTarget("45.1.1.1") || a.Refused[0].Hint == "" {
		t.Errorf("the second import answers %+v", a)
	}
	n.wantBanned("45.1.1.2")
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
	n.wantBanned("45.1.1.1", "45.1.1.2")
}

// Two verbs: a withdrawal ends the claims of one source, here and at readers, and
// forbids nobody to say it.
func TestAWithdrawalBySourceLeavesTheOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	for _, by := range []string{"", "fail2ban", "list:drop"} {
		n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600, By: by}, nil)
	}
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.2"), Topic: "sshd", For: 3600, By: "list:drop"}, nil)
	var w control.WithdrawAnswer
	n.post("/v1/withdraw", control.WithdrawRequest{All: true, By: "list:drop"}, &w)
	if len(w.Withdrawn) != 2 || !w.Withdrawn[0].Banned || w.Withdrawn[1].Banned || w.Withdrawn[0].By != "list:drop" {
		t.Errorf("withdrawn: %+v", w)
	}
	n.wantBanned("45.1.1.1")
	n.restart()
	n.wantBanned("45.1.1.1")
	var x control.Explanation
	if err := n.client.Get(t.Context(), "/v1/explain", url.Values{"target": {"45.1.1.1"}}, &x); err != nil || len(x.Standings) != 1 || len(x.Standings[0].Claims) != 2 {
		t.Fatalf("explained %+v, %v", x, err)
	}
	for _, c := range x.Standings[0].Claims {
		if want := map[string]ban.Basis{"hand": ban.BasisDecided, "fail2ban": ban.BasisHandedOver}; c.Basis != want[c.Source] {
			t.Errorf("%s rests on %v", c.Source, c.Basis)
		}
	}
	n.post("/v1/withdraw", control.WithdrawRequest{Targets: []ban.Target{ban.MustTarget("45.1.1.1")}, Reason: ban.ReasonMistake}, &w)
	if len(w.Withdrawn) != 2 {
		t.Errorf("withdrawn: %+v", w)
	}
	n.wantBanned()
	// Nothing shields it: it can be banned again by anybody.
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600, By: "fail2ban"}, nil)
	n.wantBanned("45.1.1.1")
	for name, q := range map[string]control.WithdrawRequest{
		"nothing": {}, "both": {All: true, Targets: []ban.Target{ban.MustTarget("45.1.1.1")}}, "no topic": {All: true, Topic: "nonsense"},
	} {
		if err := n.client.Post(t.Context(), "/v1/withdraw", q, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// Detection and its sightings speak for themselves: a program that bans under
// their name would have its bans counted, told and withdrawn as theirs.
func TestNobodyBansInTheNameOfDetection(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet)
	for _, by := range []string{"detection", "sighting"} {
		err := n.client.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600, By: by}, nil)
		if no, ok := errors.AsType[*control.RefusedError](err); !ok || no.Code != control.CodeBad {
			t.Errorf("a ban by %q: %v", by, err)
		}
	}
	if n.drops("45.1.1.1") {
		t.Error("it is in force")
	}
}
