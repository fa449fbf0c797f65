package commands

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
)

// startSSHD runs a real sshd at a port, and writes its log as syslog does.
func startSSHD(t *testing.T, address, port string) (log string) {
	t.Helper()
	dir := t.TempDir()
	log = filepath.Join(dir, "auth.log")
	f, err := os.Create(log)
	testnet.Must(t, err)
	testnet.Must(t, os.MkdirAll("/run/sshd", 0o755))
	testnet.Run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, "key"))
	c := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", port, "-h", filepath.Join(dir, "key"),
		"-o", "ListenAddress="+address, "-o", "UsePAM=no", "-o", "PidFile=none", "-o", "MaxStartups=200")
	out, err := c.StderrPipe()
	testnet.Must(t, err)
	testnet.Must(t, c.Start())
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer f.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintf(f, "%s host sshd[%d]: %s\n", time.Now().Format(time.RFC3339), c.Process.Pid, strings.TrimSpace(lines.Text()))
		}
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill()
		<-copied
		_ = c.Wait()
	})
	return log
}

// TestABanOfSSHDAtAnotherPortIsToldNotToBite has a real sshd at a port that the topic does not name: the ban
// is in the kernel and closes port 22.
func TestABanOfSSHDAtAnotherPortIsToldNotToBite(t *testing.T) {
	for _, name := range []string{"/usr/sbin/sshd", "ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not here")
		}
	}
	const server, offender = "198.18.0.1", "203.0.113.66"
	t.Parallel()
	testnet.Enter(t)
	host := testnet.Attach(t, "offender", []string{server + "/24"}, []string{"198.18.0.2/24", offender + "/32"})
	testnet.Run(t, "ip", "route", "add", offender+"/32", "via", "198.18.0.2")
	log := startSSHD(t, server, "2222")
	node := newWalkNode(t, `
[topics.sshd]
detect = true
publish = false
journal = []
ports = [22]
files = ["`+log+`"]
corroborate = "off"
`)
	guess := func() {
		host.Do(func() {
			c := exec.Command("ssh", "-F", "none", "-b", offender, "-p", "2222", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5", "oracle@"+server, "true")
			_ = c.Run() // it is refused, which the log says
		})
	}
	node.until("the offender is banned", func() bool {
		guess()
		return node.is(offender) == "ban" && node.dropped(offender)
	})
	var warning string
	node.until("status warns", func() bool {
		guess()
		out, _, err := node.do("", "status", "--json")
		var s control.Status
		if err != nil || json.Unmarshal([]byte(out), &s) != nil {
			return false
		}
		for _, w := range s.Warnings {
			if w.Code == "ban-does-not-bite" {
				warning = w.Text + "; " + w.Fix
			}
		}
		return warning != ""
	})
	for _, want := range []string{"sshd: ", " offences of " + offender + " are dated after its ban", "2222"} {
		if !strings.Contains(warning, want) {
			t.Errorf("status: %s\nlacks %s", warning, want)
		}
	}
	if out, _, _ := node.do("", "explain", offender); !strings.Contains(out, "after its ban") || !strings.Contains(out, "2222") {
		t.Errorf("explain: %s", out)
	}
}

// TestARestoreOfAnotherFirewallLosesNoBan lets the programs that netfilter-persistent and Debian's nftables.service
// run load their saved rules beside a running agent, with rules of theirs from before
// its bans.
func TestARestoreOfAnotherFirewallLosesNoBan(t *testing.T) {
	for _, name := range []string{"nft", "iptables-nft-save", "iptables-nft-restore"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not here")
		}
	}
	t.Parallel()
	testnet.Enter(t)
	node := newWalkNode(t, "[topics.sshd]\nfiles = []\njournal = []\n")
	ban := func(x string) {
		if _, refusal, err := node.do("", "ban", x); err != nil {
			t.Fatalf("%v: %s", err, refusal)
		}
	}
	ban("203.0.113.1")
	testnet.Run(t, "iptables-nft", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
	rules, ruleset := testnet.Run(t, "iptables-nft-save"), testnet.Run(t, "nft", "list", "ruleset")
	ban("203.0.113.2")
	if _, refusal, err := node.do("", "unban", "203.0.113.1"); err != nil {
		t.Fatalf("%v: %s", err, refusal)
	}
	asWanted := func() bool { return node.dropped("203.0.113.2") && !node.dropped("203.0.113.1") }
	for name, restore := range map[string]func(){
		"netfilter-persistent": func() { testnet.Feed(t, rules, "iptables-nft-restore") },
		"nftables.service":     func() { testnet.Feed(t, "flush ruleset\n"+ruleset, "nft", "-f", "-") },
	} {
		restore()
		node.until(name+" restored, and the bans are the wanted ones", asWanted)
		if got := testnet.Run(t, "iptables-nft-save"); !strings.Contains(got, "--dport 23 -j DROP") {
			t.Errorf("%s: its own rules are gone:\n%s", name, got)
		}
	}
	// At boot the rules are loaded into an empty kernel, before the agent.
	node.kill()
	testnet.Run(t, "nft", "flush", "ruleset")
	testnet.Feed(t, rules, "iptables-nft-restore")
	node.start()
	if !asWanted() {
		t.Errorf("after a boot:\n%s", testnet.Run(t, "nft", "list", "ruleset"))
	}
}
