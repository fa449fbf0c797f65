package compat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
	"banmesh/test/compat/crowdsec"
)

const joinedByCrowdSec = `
[embedded_broker]
enabled = false
[firewall]
mode = "off"
[crowdsec]
listen = "127.0.0.1:0"
[topics.sshd]
detect = false
`

// Debian's CrowdSec, of which join changes one line, gets our bans and tells us
// its alerts; nothing of an alert but target, class, count and time is kept;
// leave puts its credentials back.
func TestCrowdSecItselfJoins(t *testing.T) {
	t.Parallel()
	dir, c := node(t, joinedByCrowdSec)
	credentials := filepath.Join(t.TempDir(), "online.yaml")
	const before = "url: https://api.example.org/\nlogin: documentation\npassword: documentation-password\n"
	testnet.Must(t, os.WriteFile(credentials, []byte(before), 0o600))
	self, err := os.Executable()
	testnet.Must(t, err)
	agent := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), self, append([]string{"--socket", filepath.Join(dir, "agent.sock"), "crowdsec"}, args...)...)
		command.Env = append(os.Environ(), "BANMESH_TEST_COMMAND=agent")
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	out := agent("join", "--yes", "--credentials", credentials)
	if !strings.Contains(out, "- url: https://api.example.org/\n+ url: http://127.0.0.1:") {
		t.Errorf("%s", out)
	}
	var b control.Ban
	testnet.Must(t, c.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("198.51.100.9"), Topic: "sshd", For: 7200}, &b))
	testnet.Must(t, c.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("203.0.113.0/24"), Topic: "sshd", For: 7200}, &b))

	theirs, err := crowdsec.StartJoined(t.Context(), t.TempDir(), "../..", credentials)
	if errors.Is(err, crowdsec.ErrMissing) {
		t.Skip(err)
	}
	testnet.Must(t, err)
	defer theirs.Stop()
	token := watcher(t, theirs.URL)
	testnet.Eventually(t, func() bool {
		_, body := ask(t, theirs.URL+"/v1/decisions", crowdsec.Key)
		return strings.Contains(body, `"value":"198.51.100.9"`) && strings.Contains(body, `"origin":"CAPI"`) && strings.Contains(body, `"value":"203.0.113.0/24"`)
	})

	now := time.Now().UTC().Format(time.RFC3339)
	alert := func(scenario, address string) string {
		return fmt.Sprintf(`{"scenario":%q,"scenario_hash":"a","scenario_version":"0.1","message":"Ip %[2]s as user root on host example","events_count":6,"start_at":%[3]q,"stop_at":%[3]q,"capacity":5,"leakspeed":"10s","simulated":false,"events":[{"timestamp":%[3]q,"meta":[{"key":"target_user","value":"root"}]}],"source":{"scope":"Ip","value":%[2]q,"ip":%[2]q}}`, scenario, address, now)
	}
	body := "[" + alert("crowdsecurity/ssh-bf", "198.51.100.77") + "," + alert("someone/unknown", "198.51.100.78") + "]"
	status, answer := post(t, theirs.URL+"/v1/alerts", token, body)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	var e control.Explanation
	// CrowdSec 1.4 sends its signals every half a minute.
	for deadline := time.Now().Add(2 * time.Minute); len(e.Standings) == 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the alert does not come")
		}
		testnet.Must(t, c.Get(t.Context(), "/v1/explain", url.Values{"target": {"198.51.100.77"}}, &e))
	}
	told, err := json.Marshal(e)
	testnet.Must(t, err)
	if !bytes.Contains(told, []byte(`"crowdsec"`)) || bytes.Contains(told, []byte("root")) || bytes.Contains(told, []byte("example")) {
		t.Errorf("%s", told)
	}
	var s control.Status
	testnet.Must(t, c.Get(t.Context(), "/v1/status", nil, &s))
	if len(s.Compat) != 1 || s.Compat[0].Protocol != "capi" || len(s.Compat[0].Clients) != 1 || s.Compat[0].Clients[0].Signals != 1 || s.Compat[0].Clients[0].Told != 2 {
		t.Errorf("%+v", s.Compat)
	}
	var w control.WithdrawAnswer
	testnet.Must(t, c.Post(t.Context(), "/v1/withdraw", control.WithdrawRequest{All: true, By: "crowdsec"}, &w))
	if len(w.Withdrawn) != 1 || w.Withdrawn[0].Class != ban.ClassAuth || w.Withdrawn[0].Basis != ban.BasisHandedOver {
		t.Errorf("%+v", w)
	}
	agent("leave", "--credentials", credentials)
	if after, err := os.ReadFile(credentials); err != nil || string(after) != before {
		t.Errorf("%q %v", after, err)
	}
}

// watcher logs in as a log processor does, with the scenarios that it has: until
// then CrowdSec pulls nothing.
func watcher(t *testing.T, at string) (token string) {
	t.Helper()
	status, body := post(t, at+"/v1/watchers/login", "", `{"machine_id":"test","password":"documentation","scenarios":["crowdsecurity/ssh-bf"]}`)
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	return answer.Token
}

func post(t *testing.T, at, token, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, strings.NewReader(body))
	testnet.Must(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "documentation/v1")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := http.DefaultClient.Do(r)
	testnet.Must(t, err)
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	testnet.Must(t, err)
	return a.StatusCode, string(b)
}
