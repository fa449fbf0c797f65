package compat

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// The whole path of a public list: a web server has it, `agent fetch` gets it as a process
// of its own, the agent watches whom it names, the first offence closes the port; with
// the rule "ban" the port is closed to all of them; a kill opens nothing, a list that
// is removed does, and nothing of it is published.
func TestAPublicListClosesThePort(t *testing.T) {
	t.Parallel()
	testnet.Enter(t)
	const here, offender, quiet, other = "198.18.0.1", "198.18.0.7", "198.18.0.9", "198.19.0.8"
	host := testnet.Attach(t, "lan", []string{here + "/15"}, []string{offender + "/15", quiet + "/15", other + "/15"})
	l := testnet.ListenTCP(t, here+":22")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "; a list\n198.18.0.4/30 ; SBL1\n198.18.0.9\n%s\n0.0.0.0/0\n", here)
	}))
	defer server.Close()
	testnet.Must(t, os.MkdirAll(at("config"), 0o755))
	testnet.Must(t, os.WriteFile(at("auth.log"), []byte("Nov 21 08:59:59 web sshd[7]: Failed password for root from 198.18.0.99 port 4000 ssh2\n"), 0o644))
	testnet.Must(t, os.WriteFile(at("config/agent.toml"), fmt.Appendf(nil, `
may_ban = ["198.18.0.0/15"]
[embedded_broker]
listen = "127.0.0.1:0"
[topics.sshd]
files = ["%[1]s/auth.log"]
journal = []
corroborate = "off"
publish = true
[fetch]
spool = "%[1]s/spool"
`, dir), 0o644))
	self, err := os.Executable()
	testnet.Must(t, err)
	program := []string{"BANMESH_TEST_COMMAND=agent", self, "--config-dir", at("config"), "--state-dir", at("state"), "--socket", at("agent.sock")}
	var said bytes.Buffer
	run := func() (kill func()) {
		c := exec.Command("env", append(program, "run")...)
		c.Stdout, c.Stderr = &said, &said
		testnet.Must(t, c.Start())
		kill = sync.OnceFunc(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		t.Cleanup(kill)
		return kill
	}
	command := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("env", append(program, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("agent %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	client := control.NewClient(at("agent.sock"))
	up := func() bool {
		var s control.Status
		return client.Get(context.Background(), "/v1/status", nil, &s) == nil
	}
	kill := run()
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", said.String())
		}
	})
	testnet.Eventually(t, up)
	passes := func(from string) bool {
		a, b, err := host.Dial(from, here+":22", l)
		if err != nil {
			return false
		}
		return a.Close() == nil && b.Close() == nil
	}
	command("lists", "add", "drop", "--url", server.URL+"/drop.txt", "--allow", "http", "--allow", "private", "--topic", "sshd")
	command("fetch", "--now")
	command("reload")
	if out := command("lists", "show", "drop"); !strings.Contains(out, "2 entries (lines)") || !strings.Contains(out, "1 too wide, 1 never to be banned") {
		t.Errorf("%s", out)
	}
	if !passes(offender) || !passes(quiet) || !passes(other) {
		t.Fatal("who does nothing here is dropped")
	}
	log, err := os.OpenFile(at("auth.log"), os.O_APPEND|os.O_WRONLY, 0)
	testnet.Must(t, err)
	defer log.Close()
	for _, addr := range []string{offender, other} {
		_, err = fmt.Fprintf(log, "%s web sshd[8]: Failed password for root from %s port 4001 ssh2\n", time.Now().Format(time.Stamp), addr)
		testnet.Must(t, err)
	}
	testnet.Eventually(t, func() bool { return host.Refused(offender, here+":22", l) })
	if !passes(quiet) || !passes(other) {
		t.Error("one offence closed the port to those of whom nobody warned")
	}
	command("lists", "remove", "drop", "--yes")
	command("lists", "add", "drop", "--url", server.URL+"/drop.txt", "--allow", "http", "--allow", "private", "--topic", "sshd", "--rule", "ban")
	testnet.Eventually(t, func() bool { return host.Refused(quiet, here+":22", l) })
	if !passes(other) {
		t.Error("somebody who is not on the list is dropped")
	}
	kill()
	kill = run()
	testnet.Eventually(t, up)
	if !host.Refused(quiet, here+":22", l) {
		t.Error("the kill opened the port")
	}
	var feeds []control.Feed
	testnet.Must(t, client.Get(context.Background(), "/v1/feeds", nil, &feeds))
	for _, f := range feeds {
		if f.Own && f.Topic == "sshd" && f.Claims != 1 { // the offence here
			t.Errorf("%d claims are published", f.Claims)
		}
	}
	command("lists", "remove", "drop", "--yes")
	testnet.Eventually(t, func() bool { return !host.Refused(quiet, here+":22", l) })
	if !host.Refused(offender, here+":22", l) {
		t.Error("an offence here is forgiven with the list")
	}
}
