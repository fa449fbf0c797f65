// Package docker reads the logs that a real Docker daemon keeps of a real TLS
// server, and of Jellyfin's and Gitea's lines, with the topics as they are shipped.
package docker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// inside names the directory of this test's files in the process that has
// namespaces of its own.
const inside = "BANMESH_DOCKER_TEST"

const (
	journald = "/lib/systemd/systemd-journald"
	image    = "livepeer/go-livepeer:latest"
	server   = "203.0.113.80"
	gateway  = "203.0.113.90" // it only breaks off, as honest gateways do
)

// TestProbesOfAContainerAreFoundInEachOfDockersLogs probes a TLS server in a
// container whose lines Docker keeps in its json files, one whose lines go to
// the journal, and one of the driver "local".
func TestProbesOfAContainerAreFoundInEachOfDockersLogs(t *testing.T) {
	if dir := os.Getenv(inside); dir != "" {
		probeContainers(t, dir)
		return
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
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, "image", "livepeer"), "./server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the server: %v\n%s", err, out)
	}
	c := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), inside+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A container is one whose lines are read, and its offender.
type container struct{ name, driver, port, probes string }

func probeContainers(t *testing.T, dir string) {
	startDaemons(t, dir)
	load := exec.CommandContext(t.Context(), "sh", "-c", `tar -C "$1" -c . | docker import - "$2"`, "sh", filepath.Join(dir, "image"), image)
	run(t, load)
	all := []container{
		// One is found by its name, the other by its image.
		{"my-livepeer-1", "json-file", "8935", "203.0.113.1"},
		{"orchestrator", "journald", "8936", "203.0.113.2"},
		{"my-livepeer-2", "local", "8937", "203.0.113.3"},
	}
	for _, c := range all {
		run(t, exec.CommandContext(t.Context(), "docker", "run", "--detach", "--name", c.name, "--network", "host", "--log-driver", c.driver, image, "/livepeer", server+":"+c.port))
	}
	for _, c := range all {
		for range 3 {
			probe(t, c.probes, c.port, "\x00\x01junk that is no TLS at all\n")
		}
		for range 10 {
			probe(t, gateway, c.port, "")
		}
	}
	want := []string{all[0].probes, all[1].probes, all[2].probes}
	var got []string
	for deadline := time.Now().Add(30 * time.Second); !slices.Equal(got, want); {
		if time.Now().After(deadline) {
			logs, _ := exec.CommandContext(t.Context(), "docker", "logs", all[0].name).CombinedOutput()
			t.Fatalf("banned %q, want %q; its lines\n%s", got, want, logs)
		}
		got = banned(t, "livepeer")
	}
	sayInEachLog(t)
	followRotations(t)
}

// said are lines of programs whose topics are found by the names of their containers.
var said = map[ban.Topic]string{
	"jellyfin": `[2026-11-28 09:14:02.123 +01:00] [INF] [31] Jellyfin.Server.Implementations.Users.UserManager: Authentication request for "admin" has been denied (IP: "%s").`,
	"gitea":    `2026/11/28 09:14:02 routers/web/auth/auth.go:206:SignInPost() [I] Failed authentication attempt for admin from %s:51234: user does not exist [uid: 0, name: admin]`,
}

// sayInEachLog finds the offenders in Docker's logs of each driver, of containers whose
// names no definition has whole. Of the journal's, `banmesh init` names the container.
func sayInEachLog(t *testing.T) {
	t.Helper()
	for topic, line := range said {
		var want, names []string
		for i, driver := range []string{"json-file", "journald", "local"} {
			address := fmt.Sprintf("198.51.100.%d", i+1)
			name := fmt.Sprintf("my-%s-%s", topic, driver)
			args := []string{"run", "--detach", "--name", name, "--network", "host", "--log-driver", driver, image, "/livepeer", "say"}
			for range 6 {
				args = append(args, fmt.Sprintf(line, address))
			}
			run(t, exec.CommandContext(t.Context(), "docker", args...))
			want = append(want, address)
			if driver == "journald" {
				names = append(names, "CONTAINER_NAME="+name+" _UID=0")
			}
		}
		var got []string
		for deadline := time.Now().Add(30 * time.Second); !slices.Equal(got, want); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: banned %q, want %q", topic, got, want)
			}
			got = banned(t, topic, names...)
		}
	}
}

// followRotations reads a container of the driver "local" while Docker rotates and
// compresses its files, and while nobody reads, and compares the lines with
// those that Docker itself gives.
func followRotations(t *testing.T) {
	t.Helper()
	const name, port = "rotated", "8938"
	run(t, exec.CommandContext(t.Context(), "docker", "run", "--detach", "--name", name, "--network", "host", "--log-driver", "local",
		"--log-opt", "max-size=20k", "--log-opt", "max-file=100", image, "/livepeer", server+":"+port))
	var got []string
	position := source.Position{}
	probed := 0
	for _, round := range []int{300, 1, 60} {
		ctx, cancel := context.WithCancel(t.Context())
		start := source.StartBeginning
		s, err := source.Open(source.Spec{Docker: []string{name}}, position, source.Options{Start: start})
		must(t, err)
		seen := make(chan string)
		ended := make(chan error, 1)
		go func() {
			ended <- s.Run(ctx, func(l source.Line) error {
				select {
				case seen <- string(l.Text):
				case <-ctx.Done():
					return ctx.Err()
				}
				return nil
			})
		}()
		for range round {
			probe(t, "203.0.113.1", port, "\x00\x01junk that is no TLS at all\n")
			probed++
		}
		for count(got) < probed {
			select {
			case line := <-seen:
				got = append(got, line)
			case <-time.After(30 * time.Second):
				t.Fatalf("%d lines of %d came", count(got), probed)
			}
		}
		cancel()
		<-ended
		position = s.Position()
		if round == 60 {
			break
		}
		for range 300 { // while nobody reads
			probe(t, "203.0.113.1", port, "\x00\x01junk that is no TLS at all\n")
			probed++
		}
	}
	files, err := filepath.Glob("/var/lib/docker/containers/*/local-logs/container.log.*.gz")
	must(t, err)
	if len(files) < 4 {
		t.Fatalf("Docker compressed only %q", files)
	}
	out, err := exec.CommandContext(t.Context(), "docker", "logs", name).CombinedOutput()
	must(t, err)
	want := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if !slices.Equal(got, want) {
		t.Fatalf("%d lines, Docker gives %d\n%s\n\n%s", len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// count gives the lines that tell of probes.
func count(lines []string) (n int) {
	for _, l := range lines {
		if strings.Contains(l, "TLS handshake error") {
			n++
		}
	}
	return n
}

// banned reads all logs once, as they are configured in the shipped topic, and
// more of the journal.
func banned(t *testing.T, topic ban.Topic, journal ...string) (got []string) {
	t.Helper()
	all, err := topics.Load("")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(d *topics.Definition) bool { return d.Name == topic })
	all[i].Detect.Journal = append(all[i].Detect.Journal, journal...)
	var mu sync.Mutex
	detector, err := detect.New(detect.Options{
		Jails:  []detect.Jail{{Definition: all[i]}},
		Source: source.Options{Once: true, Start: source.StartBeginning},
		Ban: func(_ context.Context, d detect.Decision) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, d.Target.String())
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := detector.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return slices.Compact(got)
}

// startDaemons starts journald and dockerd with empty directories of their own.
func startDaemons(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, d := range []string{"/run", "/var/log", "/var/lib/docker"} {
		must(t, os.MkdirAll(d, 0o755), unix.Mount("tmpfs", d, "tmpfs", 0, "mode=755"))
	}
	run(t, exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up"))
	for _, address := range []string{server, gateway, "203.0.113.1", "203.0.113.2", "203.0.113.3"} {
		run(t, exec.CommandContext(t.Context(), "ip", "addr", "add", address+"/32", "dev", "lo"))
	}
	for _, c := range []*exec.Cmd{
		exec.CommandContext(t.Context(), journald),
		exec.CommandContext(t.Context(), "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"),
	} {
		log, err := os.Create(filepath.Join(dir, filepath.Base(c.Path)+".log"))
		must(t, err)
		c.Stdout, c.Stderr = log, log
		must(t, c.Start())
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait() // it was told to
			log.Close()
		})
	}
	for deadline := time.Now().Add(time.Minute); exec.CommandContext(t.Context(), "docker", "version").Run() != nil; {
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(filepath.Join(dir, "dockerd.log"))
			t.Fatalf("dockerd does not come up:\n%s", b)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// probe connects from an address, says something, and goes.
func probe(t *testing.T, from, port, text string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	var conn net.Conn
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; {
		if conn, err = d.DialContext(t.Context(), "tcp", server+":"+port); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
	defer conn.Close()
	if text == "" {
		return
	}
	_, err = fmt.Fprint(conn, text)
	must(t, err)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = bytes.NewBuffer(nil).ReadFrom(conn) // until the server hangs up
}

func run(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c.Args, err, out)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
