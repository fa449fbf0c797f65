package packages

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// services stand on a host for the programs that init looks for: nginx and Caddy as they are, of
// the others a process of the name, which listens, and the files that they leave.
const services = `
fake() { cp /usr/bin/python3 /root/$1; shift; setsid "$@" >/dev/null 2>&1 3>&- 4>&- </dev/null & }
serve='import socket,sys,time
for p in sys.argv[1:]:
    s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); a,_,n=p.rpartition(":"); s.bind((a or "0.0.0.0", int(n))); s.listen()
    globals()["s"+n]=s
time.sleep(1000)'
fake livepeer /root/livepeer -c "$serve" 8936 127.0.0.1:7935
fake traefik /root/traefik -c "$serve" 443
fake fail2ban-server /root/fail2ban-server -c "$serve"
fake crowdsec /root/crowdsec -c "$serve"
fake firewalld /root/firewalld -c "$serve"
mkdir -p /etc/csf /etc/ufw && echo x >/etc/csf/csf.conf && echo ENABLED=yes >/etc/ufw/ufw.conf
mkdir -p /var/log/nginx /var/log/traefik && chmod 755 /var/log/nginx
echo '203.0.113.9 - - [28/Nov/2026:10:00:00 +0000] "GET /.env HTTP/1.1" 404 10 "-" "-"' >/var/log/nginx/access.log; chmod 600 /var/log/nginx/access.log
echo '2026/11/28 10:00:00 [error] 1#1: *1 user "x": password mismatch, client: 203.0.113.9, server: x, request: "GET / HTTP/1.1", host: "x"' >/var/log/nginx/error.log; chown root:adm /var/log/nginx/error.log; chmod 640 /var/log/nginx/error.log
mkdir -p /root/nginx && printf 'pid /root/nginx/pid; events {} http { server { listen 8081; } }' >/root/nginx/conf && nginx -c /root/nginx/conf
container() { d=/var/lib/docker/containers/$1; mkdir -p $d/local-logs; printf '{"Name":"/%s"}' $2 >$d/config.v2.json
	printf '{"LogConfig":{"Type":"%s"},"PortBindings":{"%s/tcp":[{"HostIp":"","HostPort":"%s"}]}}' $3 $4 $5 >$d/hostconfig.json; : >$d/$1-json.log; : >$d/local-logs/container.log; chmod 700 /var/lib/docker $d; }
rm -rf /var/lib/docker/containers
container aaaa my-jellyfin journald 8096 9096
container bbbb gitea-1 json-file 3000 3000
container cccc my-home-assistant local 8123 8123
for i in $(seq 100); do [ $(ss -tln | grep -c ':8936\|:443 \|:8081') = 3 ] && break; sleep 0.1; done
`

// TestInitLooksAtManyServices sets a host up that has each of the services.
func TestInitLooksAtManyServices(t *testing.T) {
	m := onHost(t)
	m.Must("dpkg -i /root/banmesh_0.1.0_amd64.deb")
	m.Must(services)
	// A user is told, and changes nothing.
	user, code := m.Do("runuser -u nobody -- banmesh init --config-dir /tmp/nobody --state-dir /tmp/nobody-state")
	if code != 3 || !strings.Contains(user, "not readable") || m.Must("ls /tmp") != m.Must("ls -I 'nobody*' /tmp") {
		t.Errorf("a user's init ends with %d and says\n%s", code, user)
	}
	// Answers of a person, who leaves at the last question; and one who ends it in the middle.
	shown := m.Must(`printf 'n\n\nn\n\nn\n' | timeout 60 script -qec 'stty cols 80 -echo; banmesh init --no-selftest' /dev/null; [ ! -e /etc/banmesh/conf.d ]`)
	// An answer is not echoed here, and nothing ends the line of a question.
	asked := strings.NewReplacer("/N] ", "/N]\n", "/n] ", "/n]\n", "already): ", "already):\n", "neither: ", "neither:\n")
	for line := range strings.Lines(asked.Replace(shown)) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(shown, "Share with others?") || !strings.Contains(shown, "Write it?") {
		t.Errorf("a person is asked\n%s", shown)
	}
	m.Must(`(sleep 2; printf 'y\n\003') | timeout 60 script -qec 'stty cols 80; banmesh init --no-selftest' /dev/null; [ ! -e /etc/banmesh/conf.d ] && ! systemctl is-active -q banmesh-agent`)
	t.Logf("on a terminal\n%s", shown)

	out := m.Must("banmesh init --yes --no-selftest")
	file := m.Must("cat /etc/banmesh/conf.d/init.toml")
	for _, want := range []string{
		`traefik +traefik listens at port 443 +none that the topic knows +not watched`, `gitea +container gitea-1 +container gitea-1 +unreadable`,
		`jellyfin +container my-jellyfin .* 0 lines`, `livepeer +livepeer listens at port 8936 +journal`, `nginx +nginx listens at port 8081 .*unreadable`,
		`sshd +sshd listens at port 22 +journal +\d+ lines`, `fail2ban runs here`, `CrowdSec runs here`, `CSF is here`, `firewalld runs here`, `ufw is on`, `cp /usr/share/doc/banmesh/examples/logs.conf`,
		`chgrp banmesh /var/log/nginx/access.log`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("init does not say %q:\n%s", want, out)
		}
	}
	for _, want := range []string{"journal = ['CONTAINER_NAME=my-jellyfin _UID=0']", "ports = [80, 443, 8096, 8920, 9096]", "ports = [8936]", "ports = [80, 443, 8081]"} {
		if !strings.Contains(file, want) {
			t.Errorf("init writes no %s:\n%s", want, file)
		}
	}
	// The rights that it names are enough; run again, it has nothing to name, and a person's changes stay.
	m.Must(`cd /etc/systemd/system && mkdir -p banmesh-agent.service.d && cp /usr/share/doc/banmesh/examples/logs.conf banmesh-agent.service.d/ && systemctl daemon-reload && systemctl try-restart banmesh-agent`)
	if again := m.Must("banmesh init --yes --no-selftest"); strings.Contains(again, "unreadable") || strings.Contains(again, "new") {
		t.Errorf("a second run says\n%s", again)
	}
	if again := m.Must("cat /etc/banmesh/conf.d/init.toml"); again != file {
		t.Errorf("a second run writes\n%s\nafter\n%s", again, file)
	}
	if out, _ := m.Do("banmesh doctor"); strings.Contains(out, "permission denied") {
		t.Errorf("with these rights doctor says\n%s", out)
	}
	// The journal has the entries of Docker's driver, and the offender is found.
	m.Must("for i in $(seq 6); do printf 'MESSAGE=[2026-11-28 09:14:02.123 +01:00] [INF] [31] Jellyfin.Server.Implementations.Users.UserManager: Authentication request for \"admin\" has been denied (IP: \"198.51.100.20\").\nCONTAINER_NAME=my-jellyfin\nSYSLOG_IDENTIFIER=aaaa\n' | logger --journald; done; for i in $(seq 100); do banmesh bans | grep -q '198.51.100.20 *jellyfin' && exit 0; sleep 0.1; done; banmesh explain 198.51.100.20; exit 1")
	m.Must("dpkg -P banmesh; [ ! -e /etc/systemd/system/banmesh-agent.service.d ]")
}
