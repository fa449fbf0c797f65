package hostscan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/topics"
)

// host makes a machine of files.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(to, name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 7002 1 0000000000000000 100 0 0 10 0
`

func TestTheServicesOfAMachineAreFound(t *testing.T) {
	root := host(t, map[string]string{
		"proc/thread-self/net/tcp":              tcp,
		"proc/12/comm":                          "sshd\n",
		"proc/12/fd/3":                          "-> socket:[7001]",
		"proc/12/fd/4":                          "-> socket:[7002]", // not listening
		"proc/13/comm":                          "fail2ban-server\n",
		"run/log/journal/x":                     "",
		"var/log/auth.log":                      "a line\n",
		"var/log/jellyfin/jellyfin20261121.log": "a line\n",
		"var/lib/docker/containers/abc/config.v2.json":    `{"Name": "/my-gitea-1"}`,
		"var/lib/docker/containers/def/config.v2.json":    `{"Name": "/redis"}`,
		"var/lib/docker/containers/broken/config.v2.json": `{`,
		"etc/docker/daemon.json":                          `{"log-driver": "local"}`,
		"etc/ufw/ufw.conf":                                "ENABLED=no\n",
	})
	r := Look(root, topics.Builtin())
	found := map[string]Found{}
	for _, f := range r.Topics {
		found[string(f.Definition.Name)] = f
	}
	sshd, ok := found["sshd"]
	if !ok || sshd.Why != "sshd listens at port 2222" || !sshd.Journal || !slices.Equal(sshd.Ports, []uint16{2222}) {
		t.Errorf("sshd: %+v", sshd)
	}
	if j, ok := found["jellyfin"]; !ok || j.Why != "its log is here" || len(j.Files) != 1 || j.Files[0] != "/var/log/jellyfin/jellyfin20261121.log" {
		t.Errorf("jellyfin: %+v", j)
	}
	if g, ok := found["gitea"]; !ok || !slices.Equal(g.Containers, []string{"my-gitea-1"}) {
		t.Errorf("gitea: %+v", g)
	}
	for _, absent := range []string{"nginx", "postfix", "dovecot", "livepeer", "web-probe"} {
		if f, ok := found[absent]; ok {
			t.Errorf("%s is said to be here: %s", absent, f.Why)
		}
	}
	if r.Docker != "local" {
		t.Errorf("Docker's driver: %q", r.Docker)
	}
	if len(r.Others) != 1 || r.Others[0].Name != "fail2ban" {
		t.Errorf("others: %+v", r.Others)
	}
}

func TestAnEmptyMachineHasNothing(t *testing.T) {
	if r := Look(t.TempDir(), topics.Builtin()); len(r.Topics) > 0 || r.Docker != "" || len(r.Others) > 0 {
		t.Errorf("%+v", r)
	}
}

// The logs of a topic that a person asks for are named, though nothing of its service is seen.
func TestTheLogsOfATopicThatIsAskedForAreFound(t *testing.T) {
	root := host(t, map[string]string{"run/log/journal/x": "", "var/log/jellyfin/jellyfin20261121.log": "a line\n", "var/log/jellyfin/jellyfin20261122.log": ""})
	f := Asked(root, definition(t, "jellyfin"))
	if f.Journal || !slices.Equal(f.Files, []string{"/var/log/jellyfin/jellyfin20261121.log"}) || f.Why != "asked for" {
		t.Errorf("jellyfin: %+v", f)
	}
	if f := Asked(root, definition(t, "sshd")); !f.Journal || len(f.Files) != 0 {
		t.Errorf("sshd: %+v", f)
	}
	if f := Asked(host(t, nil), definition(t, "sshd")); f.HasLog() {
		t.Errorf("a machine without a journal: %+v", f)
	}
}

func definition(t *testing.T, name string) *topics.Definition {
	t.Helper()
	i := slices.IndexFunc(topics.Builtin(), func(d *topics.Definition) bool { return string(d.Name) == name })
	if i < 0 {
		t.Fatalf("no topic %s", name)
	}
	return topics.Builtin()[i]
}

// A service that others reach at another port than its topic's is closed there, and one in a
// container at the ports that Docker publishes; ports of loopback are nobody else's.
func TestPortsThatWereMovedAreFound(t *testing.T) {
	const sockets = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:22E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1EFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7002 1 0000000000000000 100 0 0 10 0
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7003 1 0000000000000000 100 0 0 10 0
   3: 0100007F:177A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7004 1 0000000000000000 100 0 0 10 0
`
	root := host(t, map[string]string{
		"proc/thread-self/net/tcp": sockets,
		"proc/20/comm":             "livepeer\n", "proc/20/fd/3": "-> socket:[7001]", "proc/20/fd/4": "-> socket:[7002]",
		"proc/21/comm": "sshd\n", "proc/21/fd/3": "-> socket:[7003]", "proc/21/fd/4": "-> socket:[7004]",
		"run/log/journal/x":                           "",
		"var/lib/docker/containers/a/config.v2.json":  `{"Name": "/media-jellyfin"}`,
		"var/lib/docker/containers/a/hostconfig.json": `{"LogConfig": {"Type": "journald"}, "PortBindings": {"8096/tcp": [{"HostIp": "", "HostPort": "9000"}, {"HostIp": "127.0.0.1", "HostPort": "9001"}], "1900/udp": [{"HostPort": "1900"}]}}`,
	})
	r := Look(root, topics.Builtin())
	for _, c := range []struct {
		topic string
		ports []uint16
	}{{"livepeer", []uint16{8936}}, {"sshd", nil}, {"jellyfin", []uint16{80, 443, 8096, 8920, 9000}}} {
		i := slices.IndexFunc(r.Topics, func(f Found) bool { return string(f.Definition.Name) == c.topic })
		if i < 0 {
			t.Errorf("%s is not found", c.topic)
			continue
		}
		f := r.Topics[i]
		if got := f.Elsewhere(); !slices.Equal(got, c.ports) {
			t.Errorf("%s is closed at %d, want %d", c.topic, got, c.ports)
		}
		if journaled := slices.Equal(f.Journaled, []string{"media-jellyfin"}); journaled != (c.topic == "jellyfin") {
			t.Errorf("%s: in the journal are %q", c.topic, f.Journaled)
		}
	}
}
