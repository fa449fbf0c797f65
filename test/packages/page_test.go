package packages

import (
	"regexp"
	"strings"
	"testing"
)

// switchOnPage signs in to the page and switches publishing of sshd on.
const switchOnPage = `
base=http://127.0.0.1:7938
link=$(banmesh page open | head -n 1)
curl -sSf -c /root/jar -o /dev/null -H "Origin: $base" -d "link=${link##*=}" $base/sign-in
form=$(curl -sSf -b /root/jar $base/topics | sed -n 's/.*name="form" value="\([A-Z2-7]*\)".*/\1/p' | head -n 1)
curl -sSf -b /root/jar -o /dev/null -H "Origin: $base" -d form=$form -d topic=sshd -d field=publish -d value=on $base/topics/switch
`

// TestASwitchOnThePageOutlivesARestartOfTheShippedUnit switches a topic on the page of the
// hardened unit, which may not write the configuration, and as a user who may write that
// and not read the state.
func TestASwitchOnThePageOutlivesARestartOfTheShippedUnit(t *testing.T) {
	m := onHost(t)
	const up = "for i in $(seq 200); do banmesh status >/dev/null 2>&1 && break; sleep 0.1; done; banmesh status"
	const files = "find /etc/banmesh -type f -printf '%p %T@ %m %u %g %s\\n' | sort; find /etc/banmesh -type f -exec sha256sum {} + | sort"
	m.Must("dpkg -i /root/banmesh_0.1.0_amd64.deb && banmesh init --yes --topics sshd --no-selftest")
	m.Must("printf '[page]\\nlisten = \"127.0.0.1:7938\"\\n' >/etc/banmesh/conf.d/page.toml; chmod 644 /etc/banmesh/conf.d/page.toml; systemctl restart banmesh-agent; " + up)
	before := m.Must(files)
	m.Must(switchOnPage)
	on := regexp.MustCompile(`(?m)^sshd .* yes, page `)
	if out := m.Must("banmesh topics list"); !on.MatchString(out) {
		t.Errorf("after the switch:\n%s", out)
	}
	m.Must("systemctl restart banmesh-agent; " + up)
	if out := m.Must("banmesh topics list"); !on.MatchString(out) {
		t.Errorf("after a restart:\n%s", out)
	}
	if after := m.Must(files); after != before {
		t.Errorf("the page changed the configuration: before\n%safter\n%s", before, after)
	}

	m.Must("useradd editor && chown -R editor /etc/banmesh && chmod -R a+rX /etc/banmesh")
	before = m.Must(files)
	if out := m.Must("runuser -u editor -- banmesh topics list"); !strings.Contains(out, "you may not read which switches were set on the page") {
		t.Errorf("who may not read the switches sees\n%s", out)
	}
	out, code := m.Do("runuser -u editor -- banmesh topics unpublish sshd")
	if code == 0 || !strings.Contains(out, "/var/lib/banmesh: permission denied") || !strings.Contains(out, "use sudo. Nothing was changed") {
		t.Errorf("who may not write the switches is told (%d)\n%s", code, out)
	}
	if after := m.Must(files); after != before {
		t.Errorf("a refused command changed the configuration: before\n%safter\n%s", before, after)
	}
	if out := m.Must("banmesh topics unpublish sshd && banmesh topics list"); on.MatchString(out) {
		t.Errorf("after the last word:\n%s", out)
	}
}
