package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/test/booted"
)

// A lab is some hosts on one wire, and an attacker behind a router of it.
type lab struct {
	t    *testing.T
	name string
}

// attacker's address is none of the hosts' own network.
const attacker = "203.0.113.66"

func newLab(t *testing.T, hosts int) *lab {
	t.Helper()
	l := &lab{t: t, name: fmt.Sprintf("pair%d", os.Getpid())}
	l.add("wire")
	l.ip("-n", l.name+"wire", "link", "add", "wire", "type", "bridge")
	l.ip("-n", l.name+"wire", "link", "set", "wire", "up")
	for i := 1; i <= hosts; i++ {
		l.plug(fmt.Sprint(i), fmt.Sprintf("10.77.0.%d/24", i))
		l.ip("-n", l.name+fmt.Sprint(i), "route", "add", "default", "via", "10.77.0.254")
	}
	l.plug("attacker", "10.77.0.254/24")
	l.ip("-n", l.name+"attacker", "address", "add", attacker+"/32", "dev", "lo")
	return l
}

// add makes a namespace that goes with the test.
func (l *lab) add(name string) {
	l.t.Helper()
	l.ip("netns", "add", l.name+name)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.name+name).Run() })
	l.ip("-n", l.name+name, "link", "set", "lo", "up")
}

// plug makes a namespace with an address on the wire.
func (l *lab) plug(name, address string) {
	l.t.Helper()
	l.add(name)
	l.ip("-n", l.name+"wire", "link", "add", "w"+name, "type", "veth", "peer", "name", "eth0", "netns", l.name+name)
	l.ip("-n", l.name+"wire", "link", "set", "w"+name, "master", "wire", "up")
	l.ip("-n", l.name+name, "address", "add", address, "dev", "eth0")
	l.ip("-n", l.name+name, "link", "set", "eth0", "up")
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.CommandContext(l.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// in runs a command in a namespace.
func (l *lab) in(name string, args ...string) (string, error) {
	out, err := exec.CommandContext(l.t.Context(), "ip", append([]string{"netns", "exec", l.name + name}, args...)...).CombinedOutput()
	return string(out), err
}

func (l *lab) path(name string) string { return "/run/netns/" + l.name + name }

// clean takes away whatever the machine below has of ours, installs the package, and
// starts an sshd that writes to the journal.
const clean = `
for user in banmesh banmesh-gate; do userdel $user 2>/dev/null || true; done
rm -rf /etc/banmesh /var/lib/banmesh /var/lib/banmesh-gate /usr/local/bin/banmesh* /usr/local/bin/agent /usr/local/bin/broker /usr/lib/sysusers.d/banmesh.conf /usr/lib/tmpfiles.d/banmesh.conf /etc/systemd/system/banmesh*
mkdir -p /run/sshd
ssh-keygen -A >/dev/null
rm -f /etc/systemd/system/ssh.service
systemctl daemon-reload
systemctl start ssh
`

// sshPort is where a host's sshd listens: the second's is one that only a look at the
// machine finds.
func sshPort(host int) int { return map[bool]int{true: 2222, false: 22}[host == 2] }

// TestThreeServersPair installs the package on three hosts that have nothing of ours, sets
// each up with one command, and makes them a network with one command each. Real
// failed logins at one are dropped packets at all three.
func TestThreeServersPair(t *testing.T) {
	if !*packages {
		t.Skip("make first-contact runs it")
	}
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, base, "0.1.0", "deb")
	l := newLab(t, 3)
	var hosts []*booted.Machine
	for i := 1; i <= 3; i++ {
		h := booted.New(t)
		h.Copy(filepath.Join(base, "banmesh_0.1.0_amd64.deb"), "first.deb", 0o644)
		h.Write("etc/ssh/sshd_config.d/port.conf", fmt.Sprintf("Port %d\n", sshPort(i)), 0o644)
		m := h.Start(5*time.Minute, l.path(fmt.Sprint(i)))
		m.Must(clean)
		hosts = append(hosts, m)
	}
	for i, m := range hosts {
		began := time.Now()
		m.Must("dpkg -i /first.deb")
		out := m.Must("banmesh init --yes --enforce")
		if !strings.Contains(out, "sshd") || !strings.Contains(out, "is started") {
			t.Fatalf("init on host %d said\n%s", i+1, out)
		}
		t.Logf("figure first_contact_host_%d %.1f s", i+1, time.Since(began).Seconds())
	}
	first := hosts[0]
	operator := first.Must("banmesh key show | sed -n 's/^operator *//p'")
	for i, m := range hosts[1:] {
		began := time.Now()
		first.Must("rm -f /tmp/pair; setsid banmesh pair --yes >/tmp/pair 2>&1 3>&- & until grep -q '^waiting' /tmp/pair; do sleep 0.05; done")
		command := regexp.MustCompile(`banmesh pair 10\.77\.0\.1 [a-z-]+`).FindString(first.Must("cat /tmp/pair"))
		if i == 1 { // within init, which a server may run again
			command = "banmesh init --yes --enforce --no-selftest --pair '" + strings.TrimPrefix(command, "banmesh pair ") + "'"
		}
		out := m.Must(command)
		first.Must("until grep -q 'and follows\\|agent follows' /tmp/pair; do sleep 0.05; done")
		t.Logf("figure pair_host_%d %.1f s aim 10\n%s\n%s", i+2, time.Since(began).Seconds(), first.Must("cat /tmp/pair"), out)
		for _, side := range []*booted.Machine{first, m} {
			if left := side.Must("find /var/lib/banmesh ! -user banmesh"); left != "" {
				t.Errorf("the service does not own\n%s", left)
			}
		}
		if got := m.Must("banmesh key show | sed -n 's/^operator *//p'"); got != operator {
			t.Errorf("host %d is of operator %s, not %s", i+2, got, operator)
		}
	}
	began := time.Now()
	guess := filepath.Join(base, "guess")
	must(t, os.WriteFile(guess, []byte("#!/bin/sh\necho wrong\n"), 0o755))
	for range 2 {
		// Six guesses on a connection, as a guesser makes them; the last may hang, because the ban bites.
		_, _ = l.in("attacker", "env", "DISPLAY=:0", "SSH_ASKPASS="+guess, "SSH_ASKPASS_REQUIRE=force", "timeout", "8", "ssh", "-b", attacker,
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=6", "-p", fmt.Sprint(sshPort(2)), "root@10.77.0.2")
	}
	if out, code := hosts[1].Do("for i in $(seq 100); do nft list ruleset | grep -q " + attacker + " && exit 0; sleep 0.1; done; exit 1"); code != 0 {
		t.Fatalf("no ban from real failed logins: %s%s", out, hosts[1].Must("banmesh status; banmesh explain "+attacker+"; journalctl -u ssh --no-pager | tail -40"))
	}
	for i, m := range hosts {
		m.Must("for i in $(seq 300); do nft list ruleset | grep -q " + attacker + " && exit 0; sleep 0.1; done; banmesh explain " + attacker + "; banmesh status; banmesh bans; journalctl -u banmesh-agent -u ssh --no-pager | tail -40; exit 1")
		if _, err := l.in("attacker", "timeout", "3", "python3", "-c", fmt.Sprintf("import socket; socket.create_connection(('10.77.0.%d', %d), 2, ('%s', 0)).recv(3)", i+1, sshPort(i+1), attacker)); err == nil {
			t.Errorf("the attacker still reaches host %d", i+1)
		}
	}
	t.Logf("figure failed_logins_to_three_kernels %.1f s", time.Since(began).Seconds())
	hosts[2].Must("banmesh ban 203.0.113.77 --topic sshd --for 1h")
	for _, m := range hosts {
		m.Must("until nft list ruleset | grep -q 203.0.113.77; do sleep 0.05; done")
	}
	for i, m := range hosts {
		if out, code := m.Do("banmesh doctor"); code != 0 {
			t.Errorf("host %d: doctor says\n%s", i+1, out)
		}
	}
	for i, m := range hosts {
		if out := m.Must("systemctl restart banmesh-agent; banmesh bans"); !strings.Contains(out, attacker) {
			t.Errorf("host %d lost the ban by a restart:\n%s", i+1, out)
		}
	}
}
