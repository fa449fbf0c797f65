package livepeer

import (
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh.example/client"
	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// TestAProgramsReportsBanWhereTheOperatorOpenedATopic: a program on the machine
// reports its offences through the client package; the agent counts it where its
// operator allows that, and says no otherwise.
func TestAProgramsReportsBanWhereTheOperatorOpenedATopic(t *testing.T) {
	t.Parallel()
	binary := buildAgent(t)
	lists := freeAddress(t)
	a := newNode(t, "A", "[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \""+lists+"\"\n[gate]\nenabled = false\n"+
		"[topics.sshd]\nfiles = []\njournal = []\nreports = true\n[topics.nginx]\ndetect = true\nfiles = []\njournal = []\n")
	a.run(t, binary)
	c, err := client.Open(t.Context(), client.Options{Socket: filepath.Join(a.dir, "s-query"), Topics: []string{"sshd", "nginx"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	attacker := netip.MustParseAddr("203.0.113.9")
	report := func(n int, o client.Offence) {
		t.Helper()
		for range n {
			if !c.Report(o) {
				t.Fatalf("%+v is not taken", o)
			}
		}
	}
	const refused = 5 + 2 + 1
	report(5, client.Offence{Topic: "nginx", IP: attacker, Class: "auth"})          // not opened
	report(2, client.Offence{Topic: "nonsense", IP: attacker, Class: "auth"})       // not known
	report(1, client.Offence{Topic: "sshd", Wallet: [20]byte{1}, Class: "exploit"}) // no wallet is banned by evidence
	report(4, client.Offence{Topic: "sshd", IP: attacker, Class: "auth"})
	eventually(t, "the reports are answered", 30*time.Second, func() bool { s := c.Status(); return s.Reported == 4 && s.Dropped == refused })
	if c.Banned(attacker) {
		t.Fatal("four offences of five ban")
	}
	report(1, client.Offence{Topic: "sshd", IP: attacker, Class: "exploit"})
	eventually(t, "the fifth bans, and the program knows it", 30*time.Second, func() bool { return c.Banned(attacker) })
	var bans []control.Ban
	if err := a.client.Get(t.Context(), "/v1/bans", nil, &bans); err != nil {
		t.Fatal(err)
	}
	if len(bans) != 1 || bans[0].Topic != "sshd" || bans[0].Class != ban.ClassExploit || bans[0].Hits != 5 {
		t.Errorf("banned: %+v", bans)
	}
	resp, err := http.Get("http://" + lists + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{`banmesh_uncorroborated_total{topic="sshd"} 0`, `banmesh_bans{origin="here",topic="sshd"} 1`} {
		if err != nil || !strings.Contains(string(metrics), want) {
			t.Errorf("%v; the metrics lack %s:\n%s", err, want, metrics)
		}
	}
	// The query socket takes no commands.
	programs := control.NewClient(filepath.Join(a.dir, "s-query"))
	if err := programs.Post(t.Context(), "/v1/unban", control.UnbanRequest{Target: ban.MustTarget("203.0.113.9"), Topic: "sshd"}, nil); err == nil || !c.Banned(attacker) {
		t.Errorf("a command on the query socket: %v", err)
	}
	// The listener on TCP takes no reports at all.
	resp, err = http.Post("http://"+lists+"/v1/offences", "application/json", strings.NewReader(`{"offences":[{"topic":"sshd","target":"203.0.113.10","class":"auth"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("over TCP a report is answered with %s", resp.Status)
	}
}
