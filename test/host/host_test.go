// Package host boots a whole machine around the agent: systemd, journald and
// nftables for real, on an overlay of this one that is thrown away, with a
// network of its own.
package host

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed check.sh
var check string

//go:embed gate.sh
var gate string

// masked services would only slow the boot down or need a network.
var masked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "fail2ban.service", "mosquitto.service", "ssh.service", "rsyslog.service", "nftables.service",
	"postgresql.service", "docker.service", "containerd.service", "sshguard.service", "exim4.service", "systemd-networkd-wait-online.service",
	"nginx.service", "man-db.timer", "e2scrub_all.timer", "fstrim.timer", "systemd-resolved.service", "systemd-timesyncd.service",
	"systemd-firstboot.service", "console-getty.service", "rpcbind.service", "cron.service", "ufw.service", "firewalld.service",
}

// TestTheServiceRunsHardenedOnABootedHost boots, lets check.sh ask the service
// everything, and reads its answers.
func TestTheServiceRunsHardenedOnABootedHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("booting a host needs root")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		t.Skip("systemd-nspawn (package systemd-container) is not here")
	}
	base := t.TempDir()
	upper, root := filepath.Join(base, "upper"), filepath.Join(base, "root")
	mustDo(t, os.Mkdir(upper, 0o755), os.Mkdir(root, 0o755))
	mustDo(t, unix.Mount("tmpfs", upper, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() { _ = unix.Unmount(upper, unix.MNT_DETACH) })
	mustDo(t, os.Mkdir(upper+"/u", 0o755), os.Mkdir(upper+"/w", 0o755))
	mustDo(t, unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/u,workdir=%s/w", upper, upper)))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })

	build := exec.CommandContext(t.Context(), "make", "-C", "../..", "-s", "install", "DESTDIR="+root, "GO="+goCommand(t))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	build = exec.CommandContext(t.Context(), goCommand(t), "build", "-o", filepath.Join(root, "usr/local/bin/hostile-peer"), "./hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the hostile peer: %v\n%s", err, out)
	}
	units := filepath.Join(root, "etc/systemd/system")
	for _, name := range masked {
		path := filepath.Join(units, name)
		_ = os.Remove(path)
		mustDo(t, os.Symlink("/dev/null", path))
	}
	write := func(path, text string, mode os.FileMode) {
		path = filepath.Join(root, path)
		mustDo(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode))
	}
	write("usr/local/bin/check.sh", check, 0o755)
	write("usr/local/bin/gate.sh", gate, 0o755)
	write("etc/systemd/system/check.service", "[Unit]\nAfter=multi-user.target banmesh-agent.service\n[Service]\nType=oneshot\nStandardOutput=file:/check.out\nStandardError=file:/check.err\n"+
		"ExecStart=/bin/sh /usr/local/bin/check.sh\nExecStopPost=/bin/systemctl poweroff --no-block\nTimeoutStartSec=110\n", 0o644)
	write("etc/machine-id", "", 0o444)
	mustDo(t, os.MkdirAll(filepath.Join(units, "default.target.wants"), 0o755))
	for _, name := range []string{"check.service", "banmesh-agent.service"} {
		mustDo(t, os.Symlink("/etc/systemd/system/"+name, filepath.Join(units, "default.target.wants", name)))
	}
	mustDo(t, os.RemoveAll(filepath.Join(units, "default.target")), os.Symlink("/lib/systemd/system/multi-user.target", filepath.Join(units, "default.target")))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	boot := exec.CommandContext(ctx, "systemd-nspawn", "-D", root, "--private-network", "--register=no", "--keep-unit", "-b", "--console=pipe")
	boot.Cancel = func() error { return boot.Process.Signal(unix.SIGKILL) }
	boot.WaitDelay = 5 * time.Second
	log, err := boot.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(root, "check.out"))
	errs, _ := os.ReadFile(filepath.Join(root, "check.err"))
	if err != nil || !bytes.HasSuffix(out, []byte("all is well\n")) {
		t.Fatalf("booting: %v\nsaid\n%s%s\nboot log\n%s", err, out, errs, tail(log))
	}
	t.Logf("%s", out)
}

func goCommand(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	mustDo(t, err)
	return path
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func tail(b []byte) string {
	lines := strings.Split(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}
