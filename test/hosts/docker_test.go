package hosts

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestDockerBesideANode publishes a container's port with a real dockerd, and
// restarts Docker, the container and the agent: bans stop clients of the
// published port after each, and Docker's chain for its users is left alone.
// Then the container sees its bridge for everybody, and the node says that it
// bans nobody there.
func TestDockerBesideANode(t *testing.T) {
	for _, name := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(name); err != nil && *hosts {
			t.Skip(name + " is not here: make test-hosts installs it")
		}
	}
	h := boot(t, setup{config: "[topics.jellyfin]\ndetect = true\nmaxretry = 1000\nall_ports = true\n"})
	for _, unit := range []string{"docker.service", "docker.socket", "containerd.service"} {
		h.root.Unmask(unit)
	}
	h.Write("/etc/docker/daemon.json", `{"storage-driver": "vfs"}`)
	if out, code := h.Do(`set -e; rm -rf /var/lib/docker; systemctl daemon-reload
for at in $(awk '$3 ~ "cgroup" { print $2 }' /proc/mounts); do mount -o remount,bind,rw $at; done # cgroups v1 are lent for reading
systemctl start docker
mkdir /tmp/image; cp /usr/local/bin/server /tmp/image; tar -C /tmp/image -c . | docker import - server
docker run -d --name jellyfin --restart always -p 8096:8096 server /server :8096
iptables -I DOCKER-USER -s 198.51.100.9 -j DROP`); code != 0 {
		t.Skipf("no container runs on a host that is booted here: %s", out)
	}
	t.Cleanup(func() { _, _ = h.Do("docker rm -f jellyfin") }) // its cgroups are this machine's
	h.Must("agent ban " + offender + " --topic jellyfin --for 1h")
	h.holds("docker run", 8096)
	if got := h.ask(other, 8096); got != other {
		t.Fatalf("the container sees %s as %s", other, got)
	}
	h.mendsSources()
	h.until("the container's log is read", func() bool {
		h.ask(other, 8096)
		out, _ := h.Do("agent explain " + other)
		return strings.Contains(out, "jellyfin")
	})
	user := h.Must("iptables -S DOCKER-USER")
	for _, step := range []string{"docker restart jellyfin", "systemctl restart docker", "systemctl restart banmesh-agent", "systemctl reload banmesh-agent"} {
		h.Must(step)
		h.holds(step, 8096)
		if got := h.Must("iptables -S DOCKER-USER"); got != user {
			t.Errorf("after %s Docker's chain for users is\n%s\nit was\n%s", step, got, user)
		}
	}
	h.well("all this")

	h.Write("/etc/docker/daemon.json", `{"storage-driver": "vfs", "iptables": false}`)
	h.Must("systemctl stop docker docker.socket; iptables -F; iptables -t nat -F; systemctl start docker")
	h.until("the container sees its bridge", func() bool { return h.ask(other, 8096) == "172.17.0.1" })
	told := regexp.MustCompile(`jellyfin: (\d+) of the last \d+ offences name .* 172\.17\.0\.1`)
	h.until("the node says that it bans nobody", func() bool {
		for range 10 {
			h.ask(other, 8096)
		}
		out, _ := h.Do("agent status")
		return told.MatchString(strings.Join(strings.Fields(out), " "))
	})
	for _, command := range []string{"agent doctor", "agent explain 172.17.0.1"} {
		if out, _ := h.Do(command); !strings.Contains(out, "172.17.0.1") {
			t.Errorf("%s does not tell of it:\n%s", command, out)
		}
	}
	if h.ask(offender, 8096) != "" {
		t.Error("the offender is not stopped before the proxy")
	}
}

// mendsSources does as doctor says of a log that may not be read.
func (h *host) mendsSources() {
	h.t.Helper()
	out, code := h.Do("COLUMNS=400 agent doctor")
	found := regexp.MustCompile(`WRONG +source .*\n +fix: (.*)`).FindStringSubmatch(out)
	if code == 0 || found == nil {
		h.t.Fatalf("doctor does not tell of Docker's files, which belong to root: %d\n%s", code, out)
	}
	h.Must(found[1])
	h.until("doctor's command mends it", func() bool { _, code := h.Do("agent doctor"); return code == 0 })
}
