package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// denyServer keeps denials in memory behind the real control protocol.
type denyServer struct {
	bans     map[ban.Target]control.Ban
	requests []control.BanRequest
}

func (s *denyServer) handler() http.Handler {
	mux := http.NewServeMux()
	ban1 := func(q control.BanRequest) (control.Ban, error) {
		if q.Topic != denyTopic {
			return control.Ban{}, &control.RefusedError{Code: control.CodeRefused, Text: "targets of another kind"}
		}
		s.requests = append(s.requests, q)
		b := control.Ban{Target: q.Target, Topic: q.Topic, Until: time.Now().Add(time.Duration(q.For) * time.Second), Origin: []string{"here"}, Class: *q.Class}
		s.bans[q.Target] = b
		return b, nil
	}
	mux.HandleFunc("POST /v1/bans", control.Handle(func(r *http.Request) (any, error) {
		var q control.BanRequest
		if err := control.Decode(r, &q); err != nil {
			return nil, err
		}
		return ban1(q)
	}))
	mux.HandleFunc("POST /v1/bans/all", control.Handle(func(r *http.Request) (any, error) {
		var q control.BanAllRequest
		if err := control.Decode(r, &q); err != nil {
			return nil, err
		}
		var a control.BanAllAnswer
		for _, x := range q.Bans {
			if _, err := ban1(x); err != nil {
				a.Refused = append(a.Refused, control.Refusal{Target: x.Target, Topic: x.Topic, ErrorAnswer: control.AnswerOf(err)})
				continue
			}
			a.Banned++
		}
		return a, nil
	}))
	mux.HandleFunc("GET /v1/bans", control.Handle(func(r *http.Request) (any, error) {
		list := []control.Ban{}
		for _, b := range s.bans {
			if string(b.Topic) == r.URL.Query().Get("topic") {
				list = append(list, b)
			}
		}
		return list, nil
	}))
	mux.HandleFunc("GET /v1/documents", control.Handle(func(*http.Request) (any, error) { return control.Documents{}, nil }))
	mux.HandleFunc("POST /v1/unban", control.Handle(func(r *http.Request) (any, error) {
		var q control.UnbanRequest
		if err := control.Decode(r, &q); err != nil {
			return nil, err
		}
		a := control.UnbanAnswer{Exempt: time.Now().Add(7 * 24 * time.Hour)}
		for _, t := range append(q.Targets, q.Target) {
			if b, ok := s.bans[t]; ok {
				a.Lifted = append(a.Lifted, b)
				delete(s.bans, t)
			}
		}
		return a, nil
	}))
	mux.HandleFunc("GET /v1/gate", control.Handle(func(*http.Request) (any, error) {
		return control.GateStatus{
			Running: true,
			URL:     "http://127.0.0.1:8936/x", DryRun: true, Allowed: 7, Refused: 2,
			Wallets: []control.WalletCount{{Wallet: "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", Refused: 2}},
		}, nil
	}))
	return mux
}

// serveDenials serves on a socket of the test's own.
func serveDenials(t *testing.T) (*denyServer, *paths) {
	t.Helper()
	s := &denyServer{bans: map[ban.Target]control.Ban{}}
	p := &paths{socket: filepath.Join(t.TempDir(), "agent.sock")}
	l, err := control.Listen(p.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, s.handler(), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, p
}

// session runs a command line of the two groups and gives its output.
func session(t *testing.T, p *paths, stdin string, args ...string) (string, error) {
	t.Helper()
	c := newDenylistCommand(p)
	if args[0] == "livepeer" {
		c = newLivepeerCommand(p)
	}
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetIn(strings.NewReader(stdin))
	c.SetArgs(args[1:])
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

const (
	wallet1 = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	wallet2 = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
)

func TestADenylistIsKeptByHand(t *testing.T) {
	s, p := serveDenials(t)
	run := func(want string, args ...string) {
		t.Helper()
		got, err := session(t, p, "", args...)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: %q, %v; want %q", args, got, err, want)
		}
	}
	run("no wallet is denied", "denylist", "list")
	run("denied "+wallet1+" in broadcaster-addresses until ", "denylist", "add", strings.ToLower(wallet1), "--reason", "payment", "--for", "30d")
	if q := s.requests[0]; q.For != 30*24*3600 || *q.Class != ban.ClassPayment {
		t.Errorf("the agent was asked for %+v", q)
	}
	run(wallet1+"  payment  here  ", "denylist", "list")
	run(wallet1+"\n", "denylist", "export")
	run("address,reason,until\n"+wallet1+",payment,", "denylist", "export", "--format", "csv")
	run("admitted "+wallet1, "denylist", "remove", wallet1)
	run(wallet1+" was not denied", "denylist", "remove", wallet1)
	run("denied "+wallet2, "denylist", "add", wallet1, wallet2)
	if q := s.requests[2]; q.For != 90*24*3600 || *q.Class != ban.ClassManual {
		t.Errorf("the agent was asked for %+v", q)
	}
}

func TestWhatCannotBeDeniedIsRefusedWhole(t *testing.T) {
	s, p := serveDenials(t)
	for claim, args := range map[string][]string{
		"a name":          {"add", "name.eth"},
		"a mistyped one":  {"add", wallet1, wallet1[:41] + "c"},
		"nobody":          {"add", "0x0000000000000000000000000000000000000000"},
		"an address":      {"add", "192.0.2.7"},
		"none":            {"add"},
		"too long":        {"add", wallet1, "--for", "91d"},
		"no time":         {"add", wallet1, "--for", "x"},
		"no reason":       {"add", wallet1, "--reason", "they were rude"},
		"the agent's own": {"add", wallet1, "--reason", "recidive"},
		"no topic":        {"add", wallet1, "--topic", "A"},
	} {
		out, err := session(t, p, "", append([]string{"denylist"}, args...)...)
		if err == nil {
			t.Errorf("%s: %s", claim, out)
			continue
		}
		var said bytes.Buffer
		if code := cli.Report(&said, "agent", err); code != cli.ExitUsage {
			t.Errorf("%s: exit code %d: %s", claim, code, &said)
		}
	}
	if len(s.requests) != 0 {
		t.Errorf("the agent was asked for %+v", s.requests)
	}
	if _, err := session(t, p, "", "denylist", "add", wallet1, "--topic", "sshd"); err == nil {
		t.Error("what the agent refuses is no error")
	}
}

func TestListsAreImportedWholeOrNotAtAll(t *testing.T) {
	s, p := serveDenials(t)
	until := time.Now().Add(48 * time.Hour).UTC().Format(time.RFC3339)
	file := filepath.Join(t.TempDir(), "wallets.csv")
	if err := os.WriteFile(file, []byte("address,reason,until\n"+wallet1+",spam,"+until+"\n"+wallet2+",,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := session(t, p, "", "denylist", "import", file, "--dry-run"); err != nil || !strings.Contains(out, "2 wallets could be denied") || len(s.requests) != 0 {
		t.Errorf("%s, %v, %d requests", out, err, len(s.requests))
	}
	if out, err := session(t, p, "", "denylist", "import", file, "--reason", "flood", "--for", "1d"); err != nil || !strings.Contains(out, "denied 2 wallets in broadcaster-addresses") {
		t.Errorf("%s, %v", out, err)
	}
	if a, b := s.requests[0], s.requests[1]; *a.Class != ban.ClassSpam || a.For < 47*3600 || a.For > 48*3600 || *b.Class != ban.ClassFlood || b.For != 24*3600 {
		t.Errorf("the agent was asked for %+v and %+v", a, b)
	}
	exported, err := session(t, p, "", "denylist", "export", "--format", "json")
	if err != nil || !json.Valid([]byte(exported)) {
		t.Fatalf("%s, %v", exported, err)
	}
	s.bans, s.requests = map[ban.Target]control.Ban{}, nil
	if _, err := session(t, p, exported, "denylist", "import", "-", "--format", "json"); err != nil || len(s.bans) != 2 {
		t.Errorf("what was exported: %v, %d denied", err, len(s.bans))
	}
	s.requests = nil
	_, err = session(t, p, wallet1+"\nname.eth\nx\n", "denylist", "import", "-")
	var said bytes.Buffer
	cli.Report(&said, "agent", err)
	for _, want := range []string{`-:2: "name.eth": a name`, `-:3: "x": an Ethereum address`, "nothing was denied"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("a list with faults says %q, without %q", said.String(), want)
		}
	}
	if _, err := session(t, p, `[{"address":"`+wallet1+`","reason":"because"}]`, "denylist", "import", "-", "--format", "json"); err == nil {
		t.Error("a reason in words is taken")
	}
	if len(s.requests) != 0 {
		t.Errorf("the agent was asked for %d", len(s.requests))
	}
}

func TestTheGateAndTheSuspectsAreShown(t *testing.T) {
	_, p := serveDenials(t)
	out, err := session(t, p, "", "livepeer", "gate")
	for _, want := range []string{"-authWebhookUrl http://127.0.0.1:8936/x\n", "dry run: nobody is refused", "enable --now banmesh-gate.socket", "allowed 7, refused 2", wallet2 + "  2        0"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v; %q lacks %q", err, out, want)
		}
	}
	log := "E0109 21:47:48.069061      22 orchestrator.go:181] sender=" + wallet1 + " Error receiving ticket sessionID=x\nI0109 nothing\n"
	out, err = session(t, p, log, "livepeer", "suspects")
	lines := strings.Split(out, "\n")
	want := []string{"WALLET                                      PAYMENT  UNPROVEN", wallet1 + "  1        0"}
	if err != nil || !slices.Equal(lines[:2], want) || !strings.Contains(out, "Nothing was banned.") {
		t.Errorf("%v; %s", err, out)
	}
	if out, err := session(t, p, "nothing\n", "livepeer", "suspects", "-"); err != nil || out != "no wallet stands beside an error in 1 line\n" {
		t.Errorf("%v; %s", err, out)
	}
}
