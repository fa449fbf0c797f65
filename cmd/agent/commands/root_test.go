package commands

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
)

func TestEveryCommandsHelpHasAnExampleAndItsExitCodes(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if !strings.Contains(c.Long, "Exit codes: 0 ") {
			t.Errorf("%s does not name its exit codes", c.CommandPath())
		}
		if c.Example == "" && !c.HasSubCommands() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(cli.Program{Name: "agent"}))
}

// A user whose machine has an agent, and who has none, is told that privileges
// are missing; a configuration in their home would be read by nobody.
func TestWhoHasNoAgentMeansTheMachines(t *testing.T) {
	for _, name := range []string{"BANMESH_CONFIG_DIR", "BANMESH_STATE_DIR", "BANMESH_SOCKET", "CONFIGURATION_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	system := filepath.Join(t.TempDir(), "agent.sock")
	own := paths{config: home + "/.config/banmesh", state: home + "/.local/state/banmesh", socket: home + "/.local/state/banmesh/agent.sock"}
	machine := paths{config: "/etc/banmesh", state: "/var/lib/banmesh", socket: system}
	if got := placesOf(1000, system); got != own {
		t.Errorf("without any agent: %+v", got)
	}
	if err := os.WriteFile(system, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := placesOf(1000, system); got != machine {
		t.Errorf("with the machine's agent: %+v", got)
	}
	if err := os.MkdirAll(own.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := placesOf(1000, system); got != own {
		t.Errorf("with an agent of their own, too: %+v", got)
	}
	if got := placesOf(0, system); got != machine {
		t.Errorf("root: %+v", got)
	}
}

// A file that root left with the service is given back to it; the service's own directory
// is never given to root.
func TestAPermissionHintTakesNothingFromTheService(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("giving files to another user needs root")
	}
	state := filepath.Join(t.TempDir(), "state")
	left := filepath.Join(state, "left.toml")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Chown(state, 65534, 65534), os.WriteFile(left, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, chown := range map[string]bool{left: true, state: false} {
		if hint := permissionHint(&fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}); strings.Contains(hint, "chown") != chown {
			t.Errorf("%s: %s", path, hint)
		}
	}
}
