package packages

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestManualsAndCompletionsAreSound has man, zsh and fish read the pages and scripts of
// the packages: no warning, and the shells complete a word by asking the program.
func TestManualsAndCompletionsAreSound(t *testing.T) {
	if !*packages {
		t.Skip("make test-packages runs it")
	}
	dir := t.TempDir()
	share := filepath.Join(dir, "share")
	tool := cmp.Or(os.Getenv("GO"), "go")
	command(t, tool, "-C", "../..", "run", "./deploy/docgen", "-share", share, "-version", "0.1.0")
	command(t, tool, "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, "banmesh"), "banmesh/cmd/banmesh")
	t.Run("manuals", func(t *testing.T) {
		need(t, "man")
		pages, err := filepath.Glob(filepath.Join(share, "man/man1/*.1.gz"))
		must(t, err)
		if len(pages) < 100 {
			t.Fatalf("only %d pages", len(pages))
		}
		for few := range slices.Chunk(pages, 20) {
			c := exec.CommandContext(t.Context(), "man", append([]string{"--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"}, few...)...)
			var warnings strings.Builder
			c.Env, c.Stderr = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80"), &warnings
			if text, err := c.Output(); err != nil || warnings.Len() > 0 || len(text) == 0 {
				t.Errorf("%s: %d bytes, %v\n%s", strings.Join(few, " "), len(text), err, &warnings)
			}
		}
	})
	for shell, script := range map[string]string{
		"fish": `for f in fish/vendor_completions.d/*; fish -n $f; or exit; end; source fish/vendor_completions.d/banmesh.fish; complete -C "banmesh topics sub"`,
		// The functions of zsh's own completion work at a prompt alone.
		"zsh": `for f in zsh/vendor-completions/*; do zsh -n $f || exit; done
compdef() { }; _arguments() { }; _describe() { print -rl -- $completions; }
source zsh/vendor-completions/_banmesh; words=(banmesh topics sub); CURRENT=3; _banmesh`,
	} {
		t.Run(shell, func(t *testing.T) {
			need(t, shell)
			c := exec.CommandContext(t.Context(), shell, "-c", script)
			c.Dir, c.Env = share, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
			if text, err := c.CombinedOutput(); err != nil || !strings.Contains(string(text), "subscribe") {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

// runProgram runs the program of an unpacked deb, under an emulator where the machine has
// another processor.
func runProgram(t *testing.T, deb, emulator string) {
	t.Helper()
	args := []string{filepath.Join(t.TempDir(), "usr/bin/banmesh")}
	root := filepath.Dir(filepath.Dir(filepath.Dir(args[0])))
	command(t, "dpkg-deb", "-x", deb, root)
	if emulator != "" {
		need(t, emulator)
		args = append([]string{emulator}, args...)
	}
	for argument, want := range map[string]string{"--version": "0.1.0", "--help": "Usage:"} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if text, err := exec.CommandContext(ctx, args[0], append(args[1:], argument)...).CombinedOutput(); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v\n%s", argument, err, text)
		}
	}
}

func command(t *testing.T, args ...string) {
	t.Helper()
	if text, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not here: make test-packages installs it", program)
	}
}
