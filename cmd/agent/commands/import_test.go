package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/topics"
)

// fail2banTree writes a small configuration in fail2ban's language.
func fail2banTree(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"jail.conf": "[DEFAULT]\nbantime = 10m\nmaxretry = 5\nport = 0:65535\nprotocol = tcp\nbanaction = nftables-multiport\n" +
			"action_ = %(banaction)s[port=\"%(port)s\", protocol=\"%(protocol)s\"]\naction = %(action_)s\n" +
			"[door]\nport = ssh,8443\nfilter = door[what=key]\nlogpath = /var/log/door*.log tail\n[other]\nlogpath = /x\n",
		"jail.local": "[DEFAULT]\nignoreip = 192.0.2.0/24 host.example\nbantime.increment = true\n[door]\nenabled = true\nmaxretry = 2\nfindtime = 1h 30m\nbantimes = 3\n" +
			"action = %(action_)s\n  mail-whois[dest=x]\nfailregex = %(known/failregex)s\n  ^kicked by <HOST>$\n",
		"filter.d/door.conf":   "[INCLUDES]\nbefore = common.conf\n[Definition]\nfailregex = ^<pre>bad <what> from <HOST>$\nignoreregex =\n[Init]\nwhat = lock\n",
		"filter.d/common.conf": "[DEFAULT]\npre = \\s?door:\\s\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestImportShowsWhatJailsBecomeAndWhatIsLost(t *testing.T) {
	dir := fail2banTree(t)
	p := &paths{config: t.TempDir(), socket: filepath.Join(t.TempDir(), "none.sock")}
	out := runCommand(t, newImportCommand(p), "", "fail2ban", "--dir", dir, "--dry-run")
	for _, want := range []string{
		"jail door -> topic door", "file       /var/log/door*.log   (no such file yet", "of 1 jail (door) no log is here, so nobody is found until one is", "2 expressions (auth)",
		"after 2 within 1h 30m, for 10m, longer each time", "closes     tcp 22,8443", "never      192.0.2.0/24 host.example",
		`jail.local:8: option "bantimes" is not known`, "action mail-whois is not carried over",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(p.config); err != nil || len(left) > 0 {
		t.Errorf("a dry run wrote %v, %v", left, err)
	}
}

func TestImportWritesDefinitionsThatFindTheSameOffenders(t *testing.T) {
	p := &paths{config: t.TempDir(), socket: filepath.Join(t.TempDir(), "none.sock")}
	runCommand(t, newImportCommand(p), "", "fail2ban", "--dir", fail2banTree(t), "--no-bans")
	all, err := topics.Load(filepath.Join(p.config, "topics.d"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name != "door" {
			continue
		}
		d.Samples = []topics.Sample{
			{Line: "Nov 21 09:14:02 door: bad key from 198.51.100.1", Target: "198.51.100.1", Class: ban.ClassAuth},
			{Line: "Nov 21 09:14:02 door: bad lock from 198.51.100.1"},
			{Line: "Nov 21 09:14:02 door: bad key from 192.0.2.1"},
		}
		faults, err := detect.CheckSamples(d, time.Now())
		if err != nil || len(faults) > 0 {
			t.Errorf("%v, %v", faults, err)
		}
		return
	}
	t.Error("no topic door was written")
}

func TestBansInForceAreReadAsFail2banPrintsThem(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	line := func(ip string, d time.Duration, n string) string {
		return ip + " \t" + now.Format(time.DateTime) + " + " + n + " = " + now.Add(d).Format(time.DateTime) + "\n"
	}
	got := bansInForce(strings.NewReader(line("192.0.2.1", time.Hour, "3600")+"junk\n"+line("x", time.Hour, "1")+line("2001:db8::1", -time.Hour, "1")), now)
	if len(got) != 1 || got[0].Target != ban.MustTarget("192.0.2.1") || got[0].For != 3600 {
		t.Errorf("%+v", got)
	}
}
