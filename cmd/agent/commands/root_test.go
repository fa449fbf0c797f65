package commands

import (
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
