package commands

import (
	"testing"

	"banmesh/internal/cli"
	"banmesh/internal/cli/clitest"
)

func TestTheDocumentationNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	clitest.CheckCommands(t, newRootCommand(cli.Program{Name: "broker"}), []string{"../../../docs/broker.md", "../../../README.md"})
}
