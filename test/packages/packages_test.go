// Package packages builds packages and tries them on a booted host.
package packages

import (
	"bytes"
	"cmp"
	_ "embed"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"banmesh/test/booted"
)

// The builds take minutes, so they have a target of their own: make test-packages.
var packages = flag.Bool("packages", false, "build packages and try them")

// Scripts of the host's first boot and of its second, and the functions of both.
var (
	//go:embed functions.sh
	functions string
	//go:embed contact.sh
	contact string
	//go:embed reboot.sh
	reboot string
)

func build(t *testing.T, top, out, version, formats string, architectures ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), filepath.Join(top, "deploy/packages/build.sh"), out, version, cmp.Or(strings.Join(architectures, " "), "amd64"), formats)
	c.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1795000000")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", version, err, text)
	}
}

// TestPackagesComeAndGo installs, upgrades, reboots, removes and purges on a host that has
// nothing of ours.
func TestPackagesComeAndGo(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	h := booted.New(t)
	base := t.TempDir()
	top, err := filepath.Abs("../..")
	must(t, err)
	build(t, top, filepath.Join(base, "first"), "0.1.0", "deb rpm apk archlinux")
	build(t, top, filepath.Join(base, "second"), "0.2.0", "deb")
	h.Copy(filepath.Join(base, "first/banmesh_0.1.0_amd64.deb"), "first.deb", 0o644)
	h.Copy(filepath.Join(base, "second/banmesh_0.2.0_amd64.deb"), "second.deb", 0o644)
	for _, script := range []string{contact, reboot} {
		out := h.Run(booted.Boot{Script: functions + script, Limit: 5 * time.Minute})
		t.Logf("\n%s", out)
	}
}

// TestUninstallTakesAllThatInstallPut compares a directory before and after.
func TestUninstallTakesAllThatInstallPut(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	to := t.TempDir()
	for _, target := range []string{"install", "uninstall"} {
		c := exec.CommandContext(t.Context(), "make", "-C", "../..", target, "DESTDIR="+to)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
		n := 0
		must(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
				if target == "uninstall" {
					t.Errorf("%s is left", path)
				}
			}
			return err
		}))
		if target == "install" && n < 10 {
			t.Errorf("only %d files are installed", n)
		}
	}
}

// TestPackagesAreReproducible builds the same version from a copy of the sources
// in another place, for every architecture, and runs the program of each.
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
	formats, architectures := "deb rpm apk archlinux", []string{"amd64", "arm64", "armv7", "386", "riscv64"}
	build(t, top, filepath.Join(base, "one"), "0.1.0", formats, architectures...)
	build(t, other, filepath.Join(base, "two"), "0.1.0", formats, architectures...)
	one, err := os.ReadFile(filepath.Join(base, "one/SHA256SUMS"))
	must(t, err)
	two, err := os.ReadFile(filepath.Join(base, "two/SHA256SUMS"))
	must(t, err)
	if !bytes.Equal(one, two) || bytes.Count(one, []byte("\n")) != 20 {
		t.Errorf("two builds in two places differ:\n%s%s", one, two)
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the emulators are those of amd64")
	}
	for arch, emulator := range map[string]string{
		"amd64": "", "i386": "", "arm64": "qemu-aarch64-static", "armhf": "qemu-arm-static", "riscv64": "qemu-riscv64-static",
	} {
		t.Run(arch, func(t *testing.T) { runProgram(t, filepath.Join(base, "one/banmesh_0.1.0_"+arch+".deb"), emulator) })
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
