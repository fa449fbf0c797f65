// Package hosts has a node live beside other programs that keep firewalls, on
// hosts that boot: firewalld, ufw, netfilter-persistent and Docker, as Debian
// packages them.
package hosts

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/test/booted"
)

var hosts = flag.Bool("hosts", false, "boot hosts with other programs' firewalls (make test-hosts)")

const (
	server   = "198.18.0.1" // the host
	offender = "203.0.113.66"
	other    = "203.0.113.67" // whom nothing is held against
	lifted   = "203.0.113.68" // whose ban ended
)

// A host runs, and clients on its wire dial it.
type host struct {
	*booted.Machine
	t       *testing.T
	root    *booted.Host
	clients string // their network namespace
}

// A setup is a host's files and packages before it boots.
type setup struct {
	debs   []string // other programs, which are installed once it runs
	config string   // of the agent
	dropIn string   // of the agent's unit
}

// files are the package and the web server, built once.
var files = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "hosts-"); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"../../deploy/packages/build.sh", dir, "0.1.0", "amd64", "deb"},
		{"go", "build", "-trimpath", "-o", filepath.Join(dir, "server"), "./server"},
	} {
		c := exec.Command(args[0], args[1:]...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%s: %w\n%s", args[0], err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *hosts {
		if dir, _ := files(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// boot boots a host with the package of Banmesh, which lifts a ban of lifted, and
// with a web server at port 8080.
func boot(t *testing.T, s setup) *host {
	t.Helper()
	if !*hosts {
		t.Skip("make test-hosts runs it")
	}
	t.Parallel()
	dir, err := files()
	if err != nil {
		t.Fatal(err)
	}
	h := booted.New(t)
	h.Copy(filepath.Join(dir, "server"), "usr/local/bin/server", 0o755)
	h.Copy(filepath.Join(dir, "banmesh_0.1.0_amd64.deb"), "root/debs/banmesh.deb", 0o644)
	for _, name := range s.debs {
		list, err := filepath.Glob(filepath.Join("../../.deps/debs", name, "*.deb"))
		if err != nil || len(list) == 0 {
			t.Fatalf("the package %s is not here: make test-hosts downloads it", name)
		}
		for _, deb := range list {
			h.Copy(deb, filepath.Join("root/debs/other", filepath.Base(deb)), 0o644)
		}
	}
	h.Write("etc/systemd/system/web.service", "[Service]\nExecStart=/usr/local/bin/server :8080\n[Install]\nWantedBy=multi-user.target\n", 0o644)
	h.Enable("web.service")
	for _, name := range []string{"firewalld.service", "ufw.service", "netfilter-persistent.service"} {
		h.Unmask(name) // where installed, it is started by the test
	}
	x := &host{t: t, root: h}
	x.Machine = h.Start(8*time.Minute, x.wire())
	x.Must(`rm -rf /etc/banmesh /var/lib/banmesh /usr/sbin/policy-rc.d
cd /root/debs; [ ! -d other ] || DEBIAN_FRONTEND=noninteractive dpkg -i other/*.deb; dpkg -i banmesh.deb`)
	x.Write("/etc/banmesh/agent.toml", s.config+"\n[topics.sshd]\nall_ports = true\n")
	if s.dropIn != "" {
		h.Write("etc/systemd/system/banmesh-agent.service.d/test.conf", s.dropIn, 0o644)
	}
	x.Must("chgrp banmesh /etc/banmesh/agent.toml; chmod 640 /etc/banmesh/agent.toml; systemctl daemon-reload; systemctl enable --now banmesh-agent; agent ban " + lifted + " --for 1h; agent unban " + lifted + " --for 1h")
	return x
}

// reboot powers the host off, and boots it with a kernel's network that knows
// nothing of before.
func (h *host) reboot() {
	h.t.Helper()
	h.PowerOff()
	h.Machine = h.root.Start(8*time.Minute, h.wire())
}

// wire makes new namespaces of the host and of its clients, with a wire between
// them, and gives the path of the host's.
func (h *host) wire() string {
	t := h.t
	t.Helper()
	words := strings.FieldsFunc(strings.TrimPrefix(t.Name(), "Test"), func(r rune) bool { return r == '/' })
	name := fmt.Sprintf("%.8s%.4s%d", words[0], words[len(words)-1], os.Getpid())
	h.clients = name + "c"
	for _, n := range []string{name, h.clients} {
		remove := func() { _ = exec.Command("ip", "netns", "del", n).Run() }
		remove()
		run(t, "ip", "netns", "add", n)
		t.Cleanup(remove)
		run(t, "ip", "-n", n, "link", "set", "lo", "up")
	}
	run(t, "ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", h.clients)
	for n, addresses := range map[string][]string{name: {server + "/24"}, h.clients: {"198.18.0.2/24", offender + "/32", other + "/32", lifted + "/32"}} {
		for _, a := range addresses {
			run(t, "ip", "-n", n, "address", "add", a, "dev", "eth0")
		}
		run(t, "ip", "-n", n, "link", "set", "eth0", "up")
	}
	run(t, "ip", "-n", name, "route", "add", "default", "via", "198.18.0.2")
	run(t, "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1") // as Docker wants it, which a booted host's /proc refuses it
	return "/run/netns/" + name
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ask asks a port of the host from an address, and gives the address that the
// server sees, "" where no answer comes.
func (h *host) ask(from string, port int) string {
	h.t.Helper()
	out, err := exec.CommandContext(h.t.Context(), "ip", "netns", "exec", h.clients, "curl", "-s", "--max-time", "2", "--interface", from, fmt.Sprintf("http://%s:%d/", server, port)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// until polls for as long as a loaded machine may take.
func (h *host) until(claim string, held func() bool) {
	h.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; {
		if held() {
			return
		}
		if time.Now().After(end) {
			out, _ := h.Do("agent status; agent doctor; systemctl --failed --no-pager; journalctl -u banmesh-agent --no-pager -o cat | tail -30")
			h.t.Fatalf("not within 40 s: %s\n%s", claim, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// holds waits until the offender is stopped at a port and others are not.
func (h *host) holds(after string, port int) {
	h.t.Helper()
	h.until("after "+after+" bans are in force, and nobody else is stopped", func() bool {
		return h.ask(other, port) != "" && h.ask(lifted, port) != "" && h.ask(offender, port) == ""
	})
}

// well asserts that the node finds nothing wrong.
func (h *host) well(after string) {
	h.t.Helper()
	if out, code := h.Do("agent doctor"); code != 0 {
		h.t.Errorf("after %s doctor ended with %d:\n%s", after, code, out)
	}
}
