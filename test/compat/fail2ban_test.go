package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/cmd/agent/commands"
	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// fail2banServer is a real fail2ban with the jails sshd and nginx, whose state
// and configuration are in a directory. It runs until the test ends.
func fail2banServer(t *testing.T, action string) (dir, socket string) {
	t.Helper()
	dir = fail2banDir(t, action)
	startFail2ban(t, dir)
	return dir, filepath.Join(dir, "f2b.sock")
}

// fail2banDir makes the configuration of a [fail2banServer].
func fail2banDir(t *testing.T, action string) (dir string) {
	t.Helper()
	if _, err := exec.LookPath("fail2ban-server"); err != nil {
		t.Skip("fail2ban is not installed")
	}
	dir = t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		testnet.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		testnet.Must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("fail2ban.conf", fmt.Sprintf("[Definition]\nloglevel = INFO\nlogtarget = %[1]s/fail2ban.log\nsyslogsocket = auto\nsocket = %[1]s/f2b.sock\npidfile = %[1]s/f2b.pid\ndbfile = %[1]s/f2b.sqlite3\ndbpurgeage = 1d\n", dir))
	write("filter.d/test.conf", "[Definition]\nfailregex = ^ sshd\\[\\d+\\]: Failed password for \\S+ from <ADDR> port \\d+ ssh2$\n")
	ours, err := os.ReadFile("../../deploy/fail2ban/action.d/banmesh.conf")
	testnet.Must(t, err)
	write("action.d/banmesh.conf", string(ours))
	write("action.d/quiet.conf", "[Definition]\nactionban =\nactionunban =\n")
	write("jail.conf", fmt.Sprintf("[DEFAULT]\nbackend = polling\nfilter = test\nmaxretry = 3\nfindtime = 600\nbantime = 3600\naction = %[2]s\nenabled = true\nignoreself = false\n[nginx]\nlogpath = %[1]s/nginx.log\n[sshd]\nlogpath = %[1]s/sshd.log\n", dir, action))
	write("sshd.log", "")
	write("nginx.log", "")
	return dir
}

// startFail2ban runs a server until it is told to stop, or the test ends.
func startFail2ban(t *testing.T, dir string) {
	t.Helper()
	socket := filepath.Join(dir, "f2b.sock")
	start(t, "fail2ban-server", "-f", "-c", dir, "-s", socket, "-p", filepath.Join(dir, "f2b.pid"), "start")
	testnet.Eventually(t, func() bool {
		return exec.Command("fail2ban-client", "-c", dir, "-s", socket, "status", "nginx").Run() == nil
	})
}

// node runs an agent until the test ends; its control socket is DIR/agent.sock.
func node(t *testing.T, configuration string) (dir string, c *control.Client) {
	t.Helper()
	dir = t.TempDir()
	testnet.Must(t, os.MkdirAll(filepath.Join(dir, "config"), 0o755))
	testnet.Must(t, os.WriteFile(filepath.Join(dir, "config", "agent.toml"), []byte(strings.ReplaceAll(configuration, "DIR", dir)), 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() {
		over <- agent.Run(ctx, agent.Options{ConfigDir: filepath.Join(dir, "config"), StateDir: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "agent.sock")})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	c = control.NewClient(filepath.Join(dir, "agent.sock"))
	testnet.Eventually(t, func() bool {
		var s control.Status
		return c.Get(t.Context(), "/v1/status", nil, &s) == nil
	})
	return dir, c
}

const besideFail2ban = `
[embedded_broker]
enabled = false
[firewall]
mode = "off"
[fail2ban]
socket = "DIR/f2b.sock"
[topics.sshd]
detect = true
files = ["DIR/sshd.log"]
maxretry = 3
findtime = "600s"
bantime = "3600s"
corroborate = "off"
[topics.nginx]
detect = true
files = ["DIR/nginx.log"]
bantime = "3600s"
corroborate = "off"
`

// fail2ban's own client prints the same of our topics as of its own server's
// jails in the same state, byte by byte but for paths and moments.
func TestFail2bansClientSeesTheSame(t *testing.T) {
	t.Parallel()
	theirs, socket := fail2banServer(t, "quiet")
	ours, _ := node(t, besideFail2ban)
	for _, log := range []string{"sshd.log", "nginx.log"} {
		testnet.Must(t, os.WriteFile(filepath.Join(ours, log), nil, 0o644))
	}
	mine := filepath.Join(ours, "f2b.sock")
	client := func(socket, in string, args ...string) string {
		c := exec.Command("fail2ban-client", append([]string{"-c", theirs, "-s", socket}, args...)...)
		c.Stdin = strings.NewReader(in)
		out, err := c.CombinedOutput()
		if err != nil {
			return string(out) + err.Error()
		}
		return string(out)
	}
	// One process asks everything: each of them costs a fifth of a second.
	all := func(commands string) {
		t.Helper()
		moment := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d{3} fail2ban +\[\d+\])?`)
		ask := func(socket, dir string) string {
			return moment.ReplaceAllString(strings.ReplaceAll(client(socket, commands, "-i"), dir, "DIR"), "MOMENT")
		}
		got, want := ask(mine, ours), ask(socket, theirs)
		if got != want {
			t.Errorf("ours\n%s\ntheirs\n%s", got, want)
		}
		if n := strings.Count(commands, "\n"); strings.Count(want, "fail2ban> ") < n {
			t.Errorf("not all of %d commands were answered: %s", n, want)
		}
	}
	testnet.Eventually(t, func() bool { return strings.Contains(client(mine, "", "ping"), "pong") })
	all(`ping
version
status
status sshd
get sshd bantime
get sshd findtime
get sshd maxretry
get sshd logpath
set sshd banip 192.0.2.7 2001:db8::7
status sshd
status sshd short
banned
banned 192.0.2.7
banned 192.0.2.7 192.0.2.9
get sshd banned 192.0.2.7
get sshd banip
get sshd banip --with-time
set sshd banip 192.0.2.7
set sshd unbanip 192.0.2.7
set sshd unbanip 192.0.2.7
set sshd unbanip --report-absent 192.0.2.7
set nginx banip 192.0.2.9
unban 192.0.2.9
unban --all
banned
status nothing
get nothing bantime
sing
set sshd attempt 192.0.2.66 one
set sshd attempt 192.0.2.66 two
set sshd attempt 192.0.2.66 three
`)
	// An attempt counts as a failure: the third bans.
	for _, s := range []string{socket, mine} {
		testnet.Eventually(t, func() bool { return strings.Contains(client(s, "", "banned", "192.0.2.66"), "sshd") })
	}
	all("get sshd banip\nbanned\n")
}

// A ban by fail2ban's client is of the source fail2ban, is shown with the
// client in the status, and can be withdrawn by that source; never-ban refuses
// it as it refuses everybody.
func TestBansOfFail2bansClientAreItsOwn(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("fail2ban-client"); err != nil {
		t.Skip("fail2ban is not installed")
	}
	dir, c := node(t, besideFail2ban)
	run := func(args ...string) string {
		out, _ := exec.Command("fail2ban-client", append([]string{"-s", filepath.Join(dir, "f2b.sock")}, args...)...).CombinedOutput()
		return string(out)
	}
	testnet.Eventually(t, func() bool { return strings.Contains(run("ping"), "pong") })
	if out := run("set", "sshd", "banip", "192.0.2.7"); out != "1\n" {
		t.Fatal(out)
	}
	if out := run("set", "sshd", "banip", "127.0.0.1"); !strings.Contains(out, "0 banned, 1 refused: 127.0.0.1") {
		t.Error(out)
	}
	var s control.Status
	testnet.Must(t, c.Get(t.Context(), "/v1/status", nil, &s))
	if len(s.Compat) != 1 || s.Compat[0].Protocol != "fail2ban" || len(s.Compat[0].Clients) != 1 || s.Compat[0].Clients[0].Asked < 3 {
		t.Errorf("%+v", s.Compat)
	}
	var w control.WithdrawAnswer
	testnet.Must(t, c.Post(t.Context(), "/v1/withdraw", control.WithdrawRequest{All: true, By: "fail2ban"}, &w))
	if len(w.Withdrawn) != 1 || w.Withdrawn[0].Target != ban.MustTarget("192.0.2.7") || w.Withdrawn[0].Basis != ban.BasisHandedOver {
		t.Errorf("%+v", w)
	}
	// A person's shield by the client holds against the client.
	run("set", "sshd", "addignoreip", "192.0.2.8")
	if out := run("set", "sshd", "banip", "192.0.2.8"); !strings.Contains(out, "0 banned, 1 refused") {
		t.Error(out)
	}
	run("set", "sshd", "delignoreip", "192.0.2.8")
	if out := run("set", "sshd", "banip", "192.0.2.8"); out != "1\n" {
		t.Error(out)
	}
	if info, err := os.Stat(filepath.Join(dir, "f2b.sock")); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
}

// A real fail2ban with our action hands its bans over with their hits, ends
// them when they end, and all of them when its jail stops; those of others and
// of this node's people stay.
func TestFail2bansActionHandsItsBansOver(t *testing.T) {
	t.Parallel()
	dir, c := node(t, besideFail2ban)
	self, err := os.Executable()
	testnet.Must(t, err)
	program := filepath.Join(t.TempDir(), "agent")
	testnet.Must(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\nBANMESH_TEST_COMMAND=agent exec %s --socket %s/agent.sock \"$@\"\n", self, dir), 0o755))
	theirs, socket := fail2banServer(t, fmt.Sprintf("banmesh[agent=%s]", program))
	banned := func() map[string]control.Ban {
		var list []control.Ban
		testnet.Must(t, c.Get(t.Context(), "/v1/bans", nil, &list))
		by := map[string]control.Ban{}
		for _, b := range list {
			by[b.Target.String()] = b
		}
		return by
	}
	var b control.Ban
	testnet.Must(t, c.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("198.51.100.1"), Topic: "sshd", For: 3600}, &b))
	f, err := os.OpenFile(filepath.Join(theirs, "sshd.log"), os.O_APPEND|os.O_WRONLY, 0)
	testnet.Must(t, err)
	for range 4 {
		_, err = fmt.Fprintf(f, "%s sshd[8]: Failed password for root from 192.0.2.7 port 4001 ssh2\n", time.Now().Format(time.DateTime))
		testnet.Must(t, err)
	}
	testnet.Must(t, f.Close())
	testnet.Eventually(t, func() bool { _, ok := banned()["192.0.2.7"]; return ok })
	x := banned()["192.0.2.7"]
	if x.Hits < 3 || x.Class != ban.ClassAuth || x.Basis != ban.BasisHandedOver || time.Until(x.Until) > time.Hour || time.Until(x.Until) < 50*time.Minute {
		t.Errorf("%+v", x)
	}
	client := func(args ...string) {
		t.Helper()
		out, err := exec.Command("fail2ban-client", append([]string{"-c", theirs, "-s", socket}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	client("set", "sshd", "banip", "192.0.2.8", "2001:db8::8")
	testnet.Eventually(t, func() bool { return len(banned()) == 4 })
	client("set", "sshd", "unbanip", "192.0.2.7")
	testnet.Eventually(t, func() bool { _, ok := banned()["192.0.2.7"]; return !ok })
	client("stop", "sshd")
	testnet.Eventually(t, func() bool { return len(banned()) == 1 })
	if _, ok := banned()["198.51.100.1"]; !ok {
		t.Errorf("%+v", banned())
	}
	// Nobody was exempt by any of it.
	var exempt []control.Exemption
	testnet.Must(t, c.Get(t.Context(), "/v1/allow", nil, &exempt))
	if len(exempt) > 0 {
		t.Errorf("%+v", exempt)
	}
}

// A ban that fail2ban restores at its start is handed over with the rest of it,
// once; one that ended while it was away is not.
func TestFail2bansRestoredBansComeBackOnce(t *testing.T) {
	t.Parallel()
	dir, c := node(t, besideFail2ban)
	self, err := os.Executable()
	testnet.Must(t, err)
	program := filepath.Join(t.TempDir(), "agent")
	testnet.Must(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\necho \"$*\" >> %[2]s/handed\nBANMESH_TEST_COMMAND=agent exec %[1]s --socket %[2]s/agent.sock \"$@\"\n", self, dir), 0o755))
	theirs := fail2banDir(t, fmt.Sprintf("banmesh[agent=%s]", program))
	client := func(args ...string) {
		t.Helper()
		out, err := exec.Command("fail2ban-client", append([]string{"-c", theirs, "-s", filepath.Join(theirs, "f2b.sock")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	bans := func() (list []control.Ban) {
		testnet.Must(t, c.Get(t.Context(), "/v1/bans", nil, &list))
		return list
	}
	startFail2ban(t, theirs)
	client("set", "sshd", "banip", "192.0.2.7")
	testnet.Eventually(t, func() bool { return len(bans()) == 1 })
	ends := bans()[0].Until
	client("stop")
	testnet.Eventually(t, func() bool { return len(bans()) == 0 })
	testnet.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(theirs, "f2b.sock")); return err != nil })
	startFail2ban(t, theirs)
	testnet.Eventually(t, func() bool { return len(bans()) == 1 })
	if b := bans()[0]; b.Target != ban.MustTarget("192.0.2.7") || b.Until.Sub(ends).Abs() > 10*time.Second || b.Basis != ban.BasisHandedOver {
		t.Errorf("%+v, ended %v before", b, ends)
	}
	handed, err := os.ReadFile(filepath.Join(dir, "handed"))
	testnet.Must(t, err)
	if n := strings.Count(string(handed), "ban 192.0.2.7 "); n != 2 {
		t.Errorf("it was handed over %d times in two runs: %s", n, handed)
	}
}

// Bans in fail2ban's log are claims of the source fail2ban, each once over a
// restart and beside the action; those that ended and of unknown jails are none,
// an Unban takes nothing back, and one that a person withdrew stays away.
func TestFail2bansLogIsReadOnce(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "fail2ban.log")
	say := func(ago time.Duration, text string) {
		t.Helper()
		f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		testnet.Must(t, err)
		_, err = fmt.Fprintf(f, "%s,123 fail2ban.actions        [4711]: NOTICE  %s\n", time.Now().Add(-ago).Format(time.DateTime), text)
		testnet.Must(t, errors.Join(err, f.Close()))
	}
	say(time.Minute, "[sshd] Ban 198.51.100.7")
	say(10*time.Hour, "[web] Ban 198.51.100.8")
	say(time.Minute, "[other] Ban 198.51.100.9")
	say(time.Second, "[sshd] Unban 198.51.100.7")
	say(time.Second, "[web] Restore Ban 198.51.100.10")
	conf := strings.Replace(besideFail2ban, "socket = \"DIR/f2b.sock\"", fmt.Sprintf("read = %q\ntopics = {web = \"nginx\"}", log), 1)
	dir, c := node(t, conf)
	bans := func() string {
		var list []control.Ban
		testnet.Must(t, c.Get(t.Context(), "/v1/bans", nil, &list))
		var out []string
		for _, b := range list {
			out = append(out, b.Target.String()+" "+string(b.Topic)+" "+b.Basis.String())
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	testnet.Eventually(t, func() bool {
		return bans() == "198.51.100.10 nginx "+ban.BasisHandedOver.String()+", 198.51.100.7 sshd "+ban.BasisHandedOver.String()
	})
	// The action says the same: one claim.
	var b control.Ban
	testnet.Must(t, c.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget("198.51.100.7"), Topic: "sshd", For: 60, By: "fail2ban", Hits: 5}, &b))
	var w control.WithdrawAnswer
	testnet.Must(t, c.Post(t.Context(), "/v1/withdraw", control.WithdrawRequest{All: true, By: "fail2ban", Topic: "sshd"}, &w))
	if len(w.Withdrawn) != 1 {
		t.Errorf("%+v", w)
	}
	testnet.Eventually(t, func() bool {
		info, err := os.Stat(filepath.Join(dir, "state", "fail2ban-log.json"))
		return err == nil && info.Size() > 0
	})
	say(0, "[sshd] Ban 198.51.100.11")
	testnet.Eventually(t, func() bool { return strings.Contains(bans(), "198.51.100.11") })
	if strings.Contains(bans(), "198.51.100.7") {
		t.Errorf("what was withdrawn came back: %s", bans())
	}
}

// The test binary is the agent's command for scripts that call it so.
func TestMain(m *testing.M) {
	if os.Getenv("BANMESH_TEST_COMMAND") == "agent" {
		os.Exit(commands.Run(context.Background(), cli.Program{Name: "agent", Version: "test"}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}
