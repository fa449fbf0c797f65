package docker

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The build takes a minute, so it has a target of its own: make test-packages.
var images = flag.Bool("image", false, "build the image and run it")

// TestTheImageRuns loads the image that was built without an engine into a real Docker
// daemon: the agent bans in the kernel of the network that it is given, with one capability,
// and the broker serves as a user without any.
func TestTheImageRuns(t *testing.T) {
	if dir := os.Getenv(inside); dir != "" {
		runImage(t, dir)
		return
	}
	if !*images {
		t.Skip("make test-packages runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("a Docker daemon needs root")
	}
	for _, program := range []string{"dockerd", "docker", journald} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not here: make test-docker installs it")
		}
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "../../deploy/image/build.sh", dir, "0.1.0", "amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the image: %v\n%s", err, out)
	}
	c := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), inside+"="+dir)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func runImage(t *testing.T, dir string) {
	startDaemons(t, dir)
	docker := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := docker("load", "-i", filepath.Join(dir, "banmesh_0.1.0_amd64.image.tar")); !strings.Contains(out, "banmesh:0.1.0") {
		t.Fatalf("load said %s", out)
	}
	until := func(claim string, f func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				out, _ := exec.CommandContext(t.Context(), "sh", "-c", "docker ps -a; docker logs agent; docker logs broker").CombinedOutput()
				t.Fatalf("never: %s\n%s", claim, out)
			}
		}
	}
	docker("run", "-d", "--name", "broker", "--network", "host", "--user", "65532", "--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges",
		"--tmpfs", "/run/banmesh-broker:uid=65532", "banmesh:0.1.0", "broker", "run", "--listen", "127.0.0.1:1883", "--socket", "/run/banmesh-broker/broker.sock")
	until("the broker answers", func() bool {
		return exec.CommandContext(t.Context(), "docker", "exec", "broker", "broker", "status", "--socket", "/run/banmesh-broker/broker.sock").Run() == nil
	})
	config := filepath.Join(dir, "config")
	must(t, os.MkdirAll(config, 0o755), os.WriteFile(filepath.Join(config, "agent.toml"), []byte("[[brokers]]\nurl = \"tcp://127.0.0.1:1883\"\n[topics.sshd]\ndetect = false\npublish = true\n"), 0o644))
	docker("run", "-d", "--name", "agent", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/run/banmesh", "--tmpfs", "/tmp",
		"-v", config+":/etc/banmesh:ro", "-v", "state:/var/lib/banmesh", "banmesh:0.1.0")
	until("the agent is connected", func() bool {
		out, _ := exec.CommandContext(t.Context(), "docker", "exec", "agent", "banmesh", "status", "--json").Output()
		return strings.Contains(string(out), `"connected": true`)
	})
	docker("exec", "agent", "banmesh", "ban", "45.1.1.1", "--topic", "sshd", "--for", "1h")
	banned := func() bool {
		out, _ := exec.CommandContext(t.Context(), "nft", "list", "ruleset").Output()
		return strings.Contains(string(out), "45.1.1.1")
	}
	if !banned() {
		t.Error("the kernel has no ban")
	}
	until("the broker retains the feed", func() bool {
		out, _ := exec.CommandContext(t.Context(), "docker", "exec", "broker", "broker", "feeds", "--socket", "/run/banmesh-broker/broker.sock").Output()
		return strings.Contains(string(out), "sshd")
	})
	docker("restart", "-t", "20", "agent")
	until("the agent has the ban after a restart", func() bool {
		out, _ := exec.CommandContext(t.Context(), "docker", "exec", "agent", "banmesh", "bans").Output()
		return strings.Contains(string(out), "45.1.1.1") && banned()
	})
	docker("rm", "-f", "agent", "broker")
	if !banned() {
		t.Error("a ban ended with the container")
	}
}
