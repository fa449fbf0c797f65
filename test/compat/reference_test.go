package compat

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// agentOf gives a command of the agent whose control socket is in dir.
func agentOf(t *testing.T, dir string) func(args ...string) string {
	t.Helper()
	self, err := os.Executable()
	testnet.Must(t, err)
	return func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), self, append([]string{"--socket", filepath.Join(dir, "agent.sock")}, args...)...)
		c.Env = append(os.Environ(), "BANMESH_TEST_COMMAND=agent")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("agent %v: %v: %s", args, err, out)
		}
		return string(out)
	}
}

// A visitor who is refused reads a reference, and whoever runs the site finds
// the ban by it, and why; requests with wrong keys are in the status.
func TestAVisitorsReferenceFindsTheBan(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close() // the agent takes the port
	dir, c := node(t, `
[embedded_broker]
enabled = false
[firewall]
mode = "off"
[http]
listen = "`+l.Addr().String()+`"
appeal = "abuse@example.org"
[lapi]
listen = "127.0.0.1:0"
[topics.sshd]
detect = false
`)
	agent := agentOf(t, dir)
	agent("ban", "198.51.100.7", "--topic", "sshd", "--for", "1h")
	at := "http://" + l.Addr().String() + "/v1/check?"
	check := func(q url.Values) (int, http.Header, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+q.Encode(), nil)
		testnet.Must(t, err)
		r.Header.Set("Accept", "text/html")
		answer, err := http.DefaultClient.Do(r)
		testnet.Must(t, err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		testnet.Must(t, err)
		return answer.StatusCode, answer.Header, string(b)
	}
	status, header, page := check(url.Values{"ip": {"198.51.100.7"}, "page": {"1"}})
	reference := header.Get("X-Banmesh-Ref")
	if status != http.StatusForbidden || !regexp.MustCompile(`^[0-9A-Z]{5}-[0-9A-Z]{5}$`).MatchString(reference) || !strings.Contains(page, reference) ||
		!strings.Contains(page, "abuse@example.org") || strings.Contains(page, "sshd") || strings.Contains(page, "198.51.100.7") {
		t.Fatalf("%d %v %s", status, header, page)
	}
	if out := agent("explain", reference); !strings.Contains(out, "198.51.100.7 is banned in sshd") {
		t.Error(out)
	}
	if status, _, _ := check(url.Values{"ip": {"198.51.100.8"}}); status != http.StatusOK {
		t.Errorf("somebody else: %d", status)
	}

	var s control.Status
	testnet.Must(t, c.Get(t.Context(), "/v1/status", nil, &s))
	if len(s.Compat) == 0 || s.Compat[0].Protocol != "lapi" || s.Compat[0].Refused != nil {
		t.Fatalf("%+v", s.Compat)
	}
	host := s.Compat[0].Listen
	if _, _, err := net.SplitHostPort(host); err != nil {
		t.Fatal(host)
	}
	for range 2 {
		if status, body := ask(t, "http://"+host+"/v1/decisions", "guessed"); status != http.StatusForbidden {
			t.Fatalf("%d %s", status, body)
		}
	}
	if out := agent("status"); !regexp.MustCompile(`(?m)^lapi on \S+: 0 clients; refused 2 requests without valid credentials, the last from 127\.0\.0\.1 .+ ago$`).MatchString(out) {
		t.Error(out)
	}
}
