// Package packages builds packages and tries them on a booted host.
package packages

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The builds take minutes, so they have a target of their own: make test-packages.
var packages = flag.Bool("packages", false, "build packages and try them")

//go:embed contact.sh
var contact string

func build(t *testing.T, top, out, version, formats string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(top, "deploy/packages/build.sh"), out, version, "amd64", formats)
	c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1795000000")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", version, err, text)
	}
}

// TestPackagesComeAndGo installs, upgrades, removes and purges on a host that has
// nothing of ours.
func TestPackagesComeAndGo(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("booting a host needs root")
	}
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, filepath.Join(base, "first"), "0.1.0", "deb rpm apk archlinux")
	build(t, top, filepath.Join(base, "second"), "0.2.0", "deb")

	upper, root := filepath.Join(base, "upper"), filepath.Join(base, "root")
	must(t, os.Mkdir(upper, 0o755), os.Mkdir(root, 0o755), unix.Mount("tmpfs", upper, "tmpfs", 0, "size=1g"))
	t.Cleanup(func() { _ = unix.Unmount(upper, unix.MNT_DETACH) })
	must(t, os.Mkdir(upper+"/u", 0o755), os.Mkdir(upper+"/w", 0o755))
	must(t, unix.Mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/u,workdir=%s/w", upper, upper)))
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	units := filepath.Join(root, "etc/systemd/system")
	for _, name := range []string{
		"apt-daily.timer", "apt-daily-upgrade.timer", "fail2ban.service", "mosquitto.service", "ssh.service", "rsyslog.service", "nftables.service", "docker.service", "containerd.service",
		"sshguard.service", "exim4.service", "systemd-networkd-wait-online.service", "nginx.service", "man-db.timer", "e2scrub_all.timer", "fstrim.timer", "systemd-resolved.service",
		"systemd-timesyncd.service", "systemd-firstboot.service", "console-getty.service", "rpcbind.service", "cron.service", "postfix.service", "dovecot.service", "crowdsec.service",
		"crowdsec-firewall-bouncer.service", "crowdsec-custom-bouncer.service", "postgresql.service", "haproxy.service", "chrony.service",
	} {
		path := filepath.Join(units, name)
		_ = os.Remove(path)
		must(t, os.Symlink("/dev/null", path))
	}
	copyTo := func(from, to string) {
		b, err := os.ReadFile(from)
		must(t, err, os.WriteFile(filepath.Join(root, to), b, 0o644))
	}
	copyTo(filepath.Join(base, "first/banmesh_0.1.0_amd64.deb"), "first.deb")
	copyTo(filepath.Join(base, "second/banmesh_0.2.0_amd64.deb"), "second.deb")
	must(t, os.WriteFile(filepath.Join(root, "usr/local/bin/check.sh"), []byte(contact), 0o755), os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o444))
	must(t, os.WriteFile(filepath.Join(units, "check.service"), []byte("[Unit]\nAfter=basic.target\n[Service]\nType=exec\nStandardOutput=file:/check.out\nStandardError=file:/check.err\n"+
		"ExecStart=/bin/sh /usr/local/bin/check.sh\nExecStopPost=/bin/systemctl poweroff --no-block\nTimeoutStartSec=200\n"), 0o644))
	must(t, os.MkdirAll(filepath.Join(units, "default.target.wants"), 0o755), os.Symlink("/etc/systemd/system/check.service", filepath.Join(units, "default.target.wants/check.service")))
	must(t, os.RemoveAll(filepath.Join(units, "default.target")), os.Symlink("/lib/systemd/system/multi-user.target", filepath.Join(units, "default.target")))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	boot := exec.CommandContext(ctx, "systemd-nspawn", "-D", root, "--private-network", "--register=no", "--keep-unit", "-b", "--console=pipe")
	boot.Cancel = func() error { return boot.Process.Signal(unix.SIGKILL) }
	boot.WaitDelay = 5 * time.Second
	log, err := boot.CombinedOutput()
	out, _ := os.ReadFile(filepath.Join(root, "check.out"))
	errs, _ := os.ReadFile(filepath.Join(root, "check.err"))
	if err != nil || !bytes.HasSuffix(out, []byte("all is well\n")) {
		t.Fatalf("booting: %v\nsaid\n%s%s\nboot log\n%s", err, out, errs, log[max(0, len(log)-3000):])
	}
	t.Logf("\n%s", out)
}

// TestPackagesAreReproducible builds the same version from a copy of the sources
// in another place.
func TestPackagesAreReproducible(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	top, err := filepath.Abs("../..")
	must(t, err)
	base := t.TempDir()
	other := filepath.Join(base, "a-copy-elsewhere")
	files, err := exec.CommandContext(t.Context(), "git", "-C", top, "ls-files").Output()
	must(t, err)
	for name := range strings.Lines(string(files)) {
		name = strings.TrimSuffix(name, "\n")
		b, err := os.ReadFile(filepath.Join(top, name))
		if os.IsNotExist(err) {
			continue
		}
		info, fault := os.Stat(filepath.Join(top, name))
		must(t, err, fault, os.MkdirAll(filepath.Dir(filepath.Join(other, name)), 0o755), os.WriteFile(filepath.Join(other, name), b, info.Mode().Perm()))
	}
	formats := "deb rpm apk archlinux"
	build(t, top, filepath.Join(base, "one"), "0.1.0", formats)
	build(t, other, filepath.Join(base, "two"), "0.1.0", formats)
	one, err := os.ReadFile(filepath.Join(base, "one/SHA256SUMS"))
	must(t, err)
	two, err := os.ReadFile(filepath.Join(base, "two/SHA256SUMS"))
	must(t, err)
	if !bytes.Equal(one, two) || bytes.Count(one, []byte("\n")) != 4 {
		t.Errorf("two builds in two places differ:\n%s%s", one, two)
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
