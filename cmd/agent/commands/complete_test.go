package commands

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/cli"
)

// Names are completed by a real bash with the script of the program, from the running
// agent; without one, and beside one that hangs, topics alone, and nothing is said.
func TestBashCompletesNames(t *testing.T) {
	t.Parallel()
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Skip("bash-completion is not here")
	}
	s := newServer(t)
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(bin, "agent")); err != nil {
		t.Fatal(err)
	}
	script, code := s.run("completion", "bash")
	if code != 0 {
		t.Fatal(script)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "completion"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	// The words that Tab offers at the end of a line.
	tab := func(line string) []string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "bash", "--norc", "-c", fmt.Sprintf(`. %s; . %s; compopt() { :; } # of an interactive shell alone
COMP_LINE=%q; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
COMP_WORDS=($COMP_LINE); case "$COMP_LINE" in *" ") COMP_WORDS+=("");; esac; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_agent; printf '%%s\n' "${COMPREPLY[@]}"`, library, filepath.Join(s.dir, "completion"), line))
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BANMESH_CONFIG_DIR="+s.paths.config, "BANMESH_STATE_DIR="+s.paths.state, "BANMESH_SOCKET="+s.paths.socket)
		var errs bytes.Buffer
		c.Stderr = &errs
		out, err := c.Output()
		if err != nil || errs.Len() > 0 {
			t.Fatalf("%q: %v, %s", line, err, errs.String())
		}
		return strings.Fields(string(out))
	}
	want := func(line string, names ...string) {
		t.Helper()
		if got := tab(line); !slices.Equal(got, names) {
			t.Errorf("%q is completed to %q, want %q", line, got, names)
		}
	}
	want("agent topics subscribe ssh", "sshd")
	want("agent unban 45.")
	hang, err := net.Listen("unix", s.paths.socket)
	if err != nil {
		t.Fatal(err)
	}
	want("agent unban 45.")
	hang.Close()

	s.write("[firewall]\nmode = \"off\"\n[topics.sshd]\nfiles = [\"/dev/null\"]\n[operators.alice]\nid = \"6otxxr3xmzvq3wmhdzurq6ssnm\"\n")
	s.agent()
	if out, code := s.run("ban", "45.1.1.1", "45.1.1.2", "46.1.1.1"); code != 0 {
		t.Fatal(out)
	}
	if out, code := s.run("allow", "add", "47.1.1.1"); code != 0 {
		t.Fatal(out)
	}
	want("agent unban 45.", "45.1.1.1", "45.1.1.2")
	want("agent unban 45.1.1.1 45.", "45.1.1.2")
	want("agent peers show a", "alice")
	want("agent peers show alice a")
	want("agent hold approve al", "alice")
	want("agent topics detect sshd s")
	want("agent ban 1.2.3.4 --topic ssh", "sshd")
	want("agent allow remove 47", "47.1.1.1")
}

func TestEveryCompletedCommandExists(t *testing.T) {
	root := newRootCommand(cli.Program{Name: "agent"})
	for path := range completed {
		if c, rest, err := root.Find(strings.Fields(path)); err != nil || len(rest) > 0 || c.ValidArgsFunction == nil {
			t.Errorf("no command %q completes names: %v", path, err)
		}
	}
}
