package guides

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/test/booted"
)

var (
	run    = flag.Bool("guides", false, "run the guides' commands on booted hosts (make test-guides)")
	only   = flag.String("guide", "", "run the guide of this name alone")
	update = flag.Bool("update", false, "write the answers into the guides")
)

// files are the guides, whose every command is run in their order.
func files(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/guides/*.md")
	if err != nil || len(list) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	return list
}

// TestEveryGuideCanBeRun reads all guides, and counts their blocks that no host here can run.
func TestEveryGuideCanBeRun(t *testing.T) {
	skipped := 0
	for _, file := range files(t) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		g, err := parse(string(b))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if len(g.steps) == 0 {
			t.Errorf("%s has no command", file)
		}
		for _, s := range g.steps {
			if s.host != "" && !slices.Contains(g.hosts, s.host) {
				t.Errorf("%s:%d: no host %q", file, s.line, s.host)
			}
		}
		for _, reason := range g.skipped {
			t.Logf("%s: not run: %s", filepath.Base(file), reason)
			skipped++
		}
	}
	if skipped > 1 { // a container's own settings
		t.Errorf("%d blocks are not run", skipped)
	}
}

// TestTheGuidesAreTrue runs each guide on hosts of its own.
func TestTheGuidesAreTrue(t *testing.T) {
	if !*run {
		t.Skip("make test-guides runs it")
	}
	deb := filepath.Join(t.TempDir(), "packages")
	c := exec.CommandContext(t.Context(), "../../deploy/packages/build.sh", deb, "0.1.0", "amd64", "deb")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building the package: %v\n%s", err, out)
	}
	for i, file := range files(t) {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if *only != "" && *only != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			follow(t, file, filepath.Join(deb, "banmesh_0.1.0_amd64.deb"), i)
		})
	}
}

// follow does all that a guide says.
func follow(t *testing.T, file, deb string, number int) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	machines := boot(t, g, deb, number)
	lines := strings.Split(string(text), "\n")
	shift := 0
	for _, s := range g.steps {
		host := s.host
		if host == "" {
			host = g.hosts[0]
		}
		if s.to != "" {
			machines[s.to].Write(s.script, machines[host].Read(s.script))
			continue
		}
		if s.beside { // Enter takes the proposed answer of each question
			machines[host].Must("({ yes '' | head -9; sleep 200; } | setsid script -qfec '" + s.script + "' /root/beside >/dev/null 2>&1 3>&- 4>&- &)")
			continue
		}
		out, code := machines[host].Do("[ ! -e /root/environment ] || . /root/environment\n" + s.script)
		if !s.hidden {
			t.Logf("%s# %s\n%s", host, s.script, out)
		}
		if code != 0 {
			journal, _ := machines[host].Do("journalctl -u 'banmesh*' --no-pager -o cat | tail -20")
			t.Fatalf("%s:%d: on %s\n%s\nended with %d and said\n%s\nthe services' log\n%s", file, s.line, host, s.script, code, out, journal)
		}
		if s.wanted == nil || same(s.wanted, out) {
			continue
		}
		if !*update {
			t.Errorf("%s:%d: %s\nsays\n%s\nand the guide shows\n%s", file, s.line, s.script, out, strings.Join(s.wanted, "\n"))
			continue
		}
		real := strings.Split(strings.TrimRight(out, "\n"), "\n")
		lines = slices.Replace(lines, s.first+shift, s.last+shift, real...)
		shift += len(real) - (s.last - s.first)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// boot gives the guide's hosts, each with the package, with an address each in
// one network and with the names of the others: host NAME is NAME.example.net.
func boot(t *testing.T, g guide, deb string, number int) map[string]*booted.Machine {
	t.Helper()
	prefix := fmt.Sprintf("bg%d-%d", os.Getpid()%10000, number)
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	netns := func(name string) {
		ip("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	authority := newAuthority(t)
	names := "127.0.0.1 localhost\n"
	for i, host := range g.hosts {
		names += fmt.Sprintf("45.80.20.%d %s.example.net %s\n", 10+i, host, host)
	}
	hosts := make([]*booted.Host, len(g.hosts))
	for i := range g.hosts { // before the namespaces: their removal comes after the hosts' end
		hosts[i] = booted.New(t)
	}
	netns(prefix)
	ip("-n", prefix, "link", "add", "bridge", "type", "bridge")
	ip("-n", prefix, "link", "set", "bridge", "up")
	machines := map[string]*booted.Machine{}
	for i, host := range g.hosts {
		space := fmt.Sprintf("%s-%d", prefix, i)
		netns(space)
		ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", fmt.Sprintf("port%d", i), "netns", prefix)
		ip("-n", prefix, "link", "set", fmt.Sprintf("port%d", i), "master", "bridge", "up")
		ip("-n", space, "addr", "add", fmt.Sprintf("45.80.20.%d/24", 10+i), "dev", "eth0")
		ip("-n", space, "link", "set", "eth0", "up")
		h := hosts[i]
		h.Copy(deb, "root/banmesh_0.1.0_amd64.deb", 0o644)
		h.Write("etc/hostname", host+"\n", 0o644)
		h.Write("etc/hosts", names, 0o644)
		authority.install(t, h, host+".example.net")
		machines[host] = h.Start(4*time.Minute, "/run/netns/"+space)
	}
	for _, host := range g.hosts {
		// The machine below these may have something of ours.
		machines[host].Must("rm -rf /etc/banmesh /var/lib/banmesh*; cd /root")
		if !g.bare {
			machines[host].Must("dpkg -i banmesh_*_amd64.deb")
		}
	}
	return machines
}

// TestTheFirstScreenIsTheQuickstart holds the transcript that README.md begins with
// against the guide that is run.
func TestTheFirstScreenIsTheQuickstart(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	first, err := parse(string(readme))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/guides/quickstart.md")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, s := range first.steps {
		command, _, _ := strings.Cut(s.script, "  #")
		command = strings.TrimSpace(command)
		i := slices.IndexFunc(guide.steps, func(g step) bool { return g.script == command })
		if i < 0 {
			t.Errorf("README.md:%d: `%s` is not in the quickstart", s.line, command)
			continue
		}
		if len(s.wanted) > 0 && !same(s.wanted, strings.Join(guide.steps[i].wanted, "\n")) {
			t.Errorf("README.md:%d: `%s` says in the quickstart\n%s", s.line, command, strings.Join(guide.steps[i].wanted, "\n"))
		}
		compared++
	}
	if compared < 4 {
		t.Errorf("%d commands of README.md were compared: the test looks in the wrong place", compared)
	}
}
