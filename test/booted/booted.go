// Package booted boots whole hosts for tests: systemd, journald and nftables for
// real, on an overlay of this machine that is thrown away, with a network of its
// own.
package booted

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// masked services would only slow the boot down, need a network, or stand beside
// the test's own.
var masked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "chrony.service", "console-getty.service", "containerd.service", "cron.service",
	"crowdsec-custom-bouncer.service", "crowdsec-firewall-bouncer.service", "crowdsec.service", "docker.service", "docker.socket", "dovecot.service",
	"e2scrub_all.timer", "exim4.service", "fail2ban.service", "firewalld.service", "fstrim.timer", "haproxy.service", "man-db.timer",
	"mosquitto.service", "nftables.service", "nginx.service", "postfix.service", "postgresql.service", "prometheus-node-exporter.service", "prometheus.service", "rpcbind.service", "rsyslog.service",
	"ssh.service", "sshguard.service", "systemd-firstboot.service", "systemd-networkd-wait-online.service", "systemd-resolved.service",
	"systemd-timesyncd.service", "ufw.service",
}

// Well is the line that a script prints last when everything held.
const Well = "all is well\n"

// A Host is the root of a machine that has not booted yet.
type Host struct {
	Root string // its root directory, on this machine
	t    testing.TB
}

// New makes a host that looks as this machine does, has no unit of Banmesh and
// no machine-id. It skips the test where no host can boot.
func New(t testing.TB) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("booting a host needs root")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("systemd-nspawn (package systemd-container) is not here")
	}
	base := t.TempDir()
	upper, root := filepath.Join(base, "upper"), filepath.Join(base, "root")
	must(t, os.Mkdir(upper, 0o755), os.Mkdir(root, 0o755), unix.Mount("tmpfs", upper, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() { _ = unix.Unmount(upper, unix.MNT_DETACH) })
	must(t, os.Mkdir(upper+"/u", 0o755), os.Mkdir(upper+"/w", 0o755))
	must(t, unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/u,workdir=%s/w", upper, upper)))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	h := &Host{Root: root, t: t}
	// All that this machine's administrator installed and that starts by itself.
	started, err := filepath.Glob(h.unit("multi-user.target.wants/*.service"))
	must(t, err)
	for i, path := range started {
		started[i] = filepath.Base(path)
	}
	for _, name := range append(started, masked...) {
		h.Unmask(name)
		must(t, os.Symlink("/dev/null", h.unit(name)))
	}
	h.Write("etc/machine-id", "", 0o444)
	must(t, os.RemoveAll(h.unit("default.target")), os.Symlink("/lib/systemd/system/multi-user.target", h.unit("default.target")))
	return h
}

// unit is the path of a unit file.
func (h *Host) unit(name string) string { return filepath.Join(h.Root, "etc/systemd/system", name) }

// Write writes a file; the path is below the host's root.
func (h *Host) Write(path, text string, mode os.FileMode) {
	h.t.Helper()
	path = filepath.Join(h.Root, path)
	must(h.t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode))
}

// Copy copies a file of this machine.
func (h *Host) Copy(from, to string, mode os.FileMode) {
	h.t.Helper()
	b, err := os.ReadFile(from)
	must(h.t, err)
	h.Write(to, string(b), mode)
}

// Unmask puts a unit of a package in force again; no unit of this
// machine's own starts otherwise.
func (h *Host) Unmask(name string) {
	h.t.Helper()
	if err := os.Remove(h.unit(name)); err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
}

// Enable starts units of /etc/systemd/system at boot.
func (h *Host) Enable(units ...string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(h.unit("default.target.wants"), 0o755))
	for _, name := range units {
		must(h.t, os.Symlink("/etc/systemd/system/"+name, h.unit("default.target.wants/"+name)))
	}
}

// A Boot is one run of a host.
type Boot struct {
	Script    string        // of sh; runs as root once After is reached, then the host powers off
	After     string        // unit; basic.target if empty
	Limit     time.Duration // for the whole run
	Namespace string        // path of a network namespace; a new one without links if empty
}

// limit is the time for the whole run.
func (b Boot) limit() time.Duration {
	if b.Limit == 0 {
		return time.Minute
	}
	return b.Limit
}

// Run boots the host, runs the script and gives its output. The test fails where
// the script does not end with the line [Well].
func (h *Host) Run(b Boot) string {
	h.t.Helper()
	out, err := h.Try(b)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Try is Run for scripts that may fail, and for goroutines of a test.
func (h *Host) Try(b Boot) (string, error) {
	if b.After == "" {
		b.After = "basic.target"
	}
	h.Write("usr/local/bin/check.sh", b.Script, 0o755)
	h.Write("etc/systemd/system/check.service", fmt.Sprintf("[Unit]\nAfter=%s\n[Service]\nType=exec\nStandardOutput=file:/check.out\nStandardError=file:/check.err\n"+
		"ExecStart=/bin/sh /usr/local/bin/check.sh\nExecStopPost=/bin/systemctl poweroff --no-block\nRuntimeMaxSec=%d\n", b.After, int(b.limit().Seconds())), 0o644)
	if _, err := os.Lstat(h.unit("default.target.wants/check.service")); err != nil {
		h.Enable("check.service")
	}
	for _, name := range []string{"check.out", "check.err"} {
		_ = os.Remove(filepath.Join(h.Root, name))
	}
	// A machine ends after the test does, so its context is none of the test.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), b.limit()+10*time.Second)
	defer cancel()
	network := []string{"--private-network"}
	if b.Namespace != "" {
		network = []string{"--network-namespace-path=" + b.Namespace, "--capability=CAP_NET_ADMIN"}
	}
	boot := exec.CommandContext(ctx, "systemd-nspawn", append(network, "-D", h.Root, "--register=no", "--keep-unit", "-b", "--console=pipe", "--system-call-filter=add_key keyctl bpf")...)
	boot.Cancel = func() error { return boot.Process.Signal(unix.SIGKILL) }
	boot.WaitDelay = 5 * time.Second
	log, err := boot.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(h.Root, "check.out"))
	errs, _ := os.ReadFile(filepath.Join(h.Root, "check.err"))
	if err != nil || !bytes.HasSuffix(out, []byte(Well)) {
		return string(out), fmt.Errorf("booting: %w\nsaid\n%s%s\nboot log\n%s", err, out, errs, tail(string(log)))
	}
	return string(out), nil
}

// tail gives the last lines of a log.
func tail(text string) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
