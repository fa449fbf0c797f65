package packages

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/test/booted"
)

// onHost builds the package, and boots a host that has nothing of ours.
func onHost(t *testing.T) *booted.Machine {
	t.Helper()
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, base, "0.1.0", "deb")
	h := booted.New(t)
	h.Copy(filepath.Join(base, "banmesh_0.1.0_amd64.deb"), "root/banmesh_0.1.0_amd64.deb", 0o644)
	for _, name := range []string{"banmesh-agent", "banmesh-broker"} {
		h.Copy(filepath.Join(top, "deploy/openrc", name), "root/openrc/"+name, 0o755)
	}
	must(t, filepath.WalkDir(filepath.Join(top, "deploy/ansible"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			h.Copy(path, filepath.Join("root", strings.TrimPrefix(path, top)), 0o644)
		}
		return err
	}))
	m := h.Start(5*time.Minute, "")
	m.Must(clean)
	return m
}

// TestTheRoleSetsUpAServer runs the Ansible role against a booted host: installed,
// configured, certified by a key that is elsewhere, running; a second run changes nothing, and
// one before the certificate's end renews it.
func TestTheRoleSetsUpAServer(t *testing.T) {
	if _, err := exec.LookPath("ansible-playbook"); err != nil {
		t.Skip("ansible-playbook (package ansible-core) is not here")
	}
	m := onHost(t)
	m.Must(`cd /root && dpkg -i banmesh_0.1.0_amd64.deb && banmesh key operator new /root/operator-keys --name fleet
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost -days 30 -keyout /root/key.pem -out /root/cert.pem
mkdir -p /root/live && cp /root/cert.pem /root/live/fullchain.pem && cp /root/key.pem /root/live/privkey.pem
RENEWED_LINEAGE=/root/live sh /usr/share/doc/banmesh/examples/certbot/banmesh-broker.sh
cat >/root/vars.yml <<'X'
banmesh_package: /root/banmesh_0.1.0_amd64.deb
banmesh_network: fleet
banmesh_enforce: true
banmesh_allow: ["198.51.100.7"]
banmesh_brokers: [{url: "ssl://localhost:8883", ca_file: /etc/banmesh/ca.pem}]
banmesh_operator_keys: /root/operator-keys
banmesh_broker: true
banmesh_broker_name: localhost
X
mkdir -p /etc/banmesh && cp /root/cert.pem /etc/banmesh/ca.pem && chmod 644 /etc/banmesh/ca.pem
cat >/root/play <<'X'
cd /root/deploy/ansible && printf '[banmesh]\nlocalhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n' >/root/inventory
ansible-playbook -i /root/inventory site.yml -e @/root/vars.yml "$@"
X
`)
	first := m.Must("bash /root/play")
	if !strings.Contains(first, "failed=0") {
		t.Fatal(first)
	}
	m.Must(`for i in $(seq 100); do banmesh status --json | grep -q '"connected": true' && exit 0; sleep 0.1; done; banmesh status; journalctl -u banmesh-broker -u banmesh-agent --no-pager | tail -30; exit 1`)
	if out := m.Must("banmesh key show; systemctl is-enabled banmesh-agent banmesh-broker"); !strings.Contains(out, "fleet") || !strings.Contains(out, "on another machine") || strings.Contains(out, "disabled") {
		t.Errorf("the host is\n%s", out)
	}
	if out, code := m.Do("banmesh ban 198.51.100.7"); code == 0 {
		t.Errorf("an allowed address is banned: %s", out)
	}
	if out := m.Must("bash /root/play"); !strings.Contains(out, "changed=0") {
		t.Errorf("a second run changes something:\n%s", out)
	}
	before := m.Must("banmesh key show --json | grep serial")
	if out := m.Must("bash /root/play -e banmesh_renew_days=100"); !strings.Contains(out, "failed=0") {
		t.Error(out)
	}
	if after := m.Must("banmesh key show --json | grep serial"); after == before {
		t.Errorf("nothing is renewed: %s", after)
	}
	m.Must(`for i in $(seq 100); do banmesh status --json | grep -q '"connected": true' && exit 0; sleep 0.1; done; exit 1`)
	if out, code := m.Do("bash /root/play -e 'banmesh_extra=\"nonsense = 1\"'"); code == 0 || !strings.Contains(out, "nonsense") {
		t.Errorf("a refused configuration is put in place:\n%s", out)
	}
}

// TestOpenRCRunsTheAgent runs the service script by OpenRC itself: it starts, comes back when
// it is killed, reloads, and stops, and a ban outlives all of that.
func TestOpenRCRunsTheAgent(t *testing.T) {
	if _, err := exec.LookPath("openrc-run"); err != nil {
		t.Skip("openrc-run (package openrc) is not here")
	}
	m := onHost(t)
	// Debian's OpenRC has no capabilities, so the agent is root's there.
	m.Must(`dpkg -i /root/banmesh_0.1.0_amd64.deb
for d in daemons exclusive failed hotplugged inactive init.d options scheduled started starting stopping tmp wasinactive; do mkdir -p /run/openrc/$d; done; touch /run/openrc/softlevel
mkdir -p /etc/conf.d && cp /root/openrc/* /etc/init.d/
printf 'command_user=root\ncapabilities=\n' >/etc/conf.d/banmesh-agent
mkdir -p /etc/banmesh && printf '[topics.sshd]\ndetect = false\n' >/etc/banmesh/agent.toml`)
	up := `for i in $(seq 200); do banmesh status >/dev/null 2>&1 && break; sleep 0.1; done; banmesh status || { cat /var/log/banmesh/agent.log; exit 1; }`
	m.Must("/etc/init.d/banmesh-agent --nodeps start; " + up + "; banmesh ban 45.1.1.1 --for 1h")
	m.Must("pid=$(banmesh status --json | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'); kill -9 $pid; for i in $(seq 200); do p=$(banmesh status --json 2>/dev/null | sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p'); [ -n \"$p\" ] && [ \"$p\" != $pid ] && break; sleep 0.1; done; " + up)
	m.Must("/etc/init.d/banmesh-agent --nodeps reload && banmesh bans | grep -q 45.1.1.1")
	m.Must("/etc/init.d/banmesh-agent --nodeps stop; ! banmesh status && nft list ruleset | grep -q 45.1.1.1")
}
