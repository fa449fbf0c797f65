package packages

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/test/booted"
)

// hammer bans one address after the other until /tmp/over is there, and counts in /tmp/done and /tmp/lost.
const hammer = `
rm -f /tmp/over; : >/tmp/done; : >/tmp/lost
( n=0; until [ -e /tmp/over ]; do n=$((n + 1)); if banmesh ban 198.51.100.$((n % 250 + 1)) --topic sshd --for 1h >/tmp/said 2>&1; then echo $n >>/tmp/done; else cat /tmp/said >>/tmp/lost; fi; done ) &
hammer=$!
while [ $(wc -l </tmp/done) -lt 3 ]; do sleep 0.05; done
for i in 1 2 3; do systemctl restart banmesh-agent; now=$(wc -l </tmp/done); while [ $(wc -l </tmp/done) -lt $((now + 3)) ] && [ ! -s /tmp/lost ]; do sleep 0.05; done; done
touch /tmp/over; wait $hammer
cat /tmp/lost; wc -l </tmp/done; [ ! -s /tmp/lost ]
`

// TestARestartLosesNoCommandAndAStopIsOne commands an agent while it restarts, is killed,
// cannot start, and is stopped by a person.
func TestARestartLosesNoCommandAndAStopIsOne(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, base, "0.1.0", "deb")
	h := booted.New(t)
	h.Copy(filepath.Join(base, "banmesh_0.1.0_amd64.deb"), "first.deb", 0o644)
	m := h.Start(3*time.Minute, "")
	m.Must(clean)
	m.Must("dpkg -i /first.deb && banmesh init --yes --topics sshd --no-selftest")

	t.Logf("commands that three restarts took none of: %s", m.Must(hammer))
	m.Must("systemctl kill -s KILL banmesh-agent; banmesh ban 203.0.113.9 --topic sshd --for 1h") // systemd waits two seconds
	if out := m.Must("banmesh bans"); !strings.Contains(out, "203.0.113.9") || !strings.Contains(out, "198.51.100.2") {
		t.Errorf("after the restarts these are banned:\n%s", out)
	}

	stopped := func(how string) {
		t.Helper()
		out, code := m.Do("timeout 20 banmesh status; code=$?; systemctl is-active -q banmesh-agent && exit 99; exit $code")
		if code != 10 || !strings.Contains(out, "not running") {
			t.Errorf("after %s status ends with %d and says\n%s", how, code, out)
		}
	}
	m.Must("systemctl stop banmesh-agent")
	stopped("a stop")
	m.Must("systemctl start banmesh-agent && systemctl kill -s KILL banmesh-agent && systemctl stop banmesh-agent")
	stopped("a stop while it was to be restarted")

	// Whoever cannot start keeps nobody waiting: the store is not one.
	m.Must("systemctl start banmesh-agent && mv /var/lib/banmesh/agent.db /var/lib/banmesh/aside && mkdir /var/lib/banmesh/agent.db && systemctl kill -s KILL banmesh-agent")
	if out, code := m.Do("timeout 20 banmesh status"); code == 0 || code == 124 {
		t.Errorf("of an agent that cannot start status says (%d)\n%s", code, out)
	}
	m.Must("rmdir /var/lib/banmesh/agent.db && mv /var/lib/banmesh/aside /var/lib/banmesh/agent.db; until banmesh status; do sleep 0.1; done")
}
