package main

import (
	"testing"

	"banmesh/internal/cli/clitest"
)

func TestTheDocumentationNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	clitest.CheckCommands(t, newRootCommand(), []string{"../../docs/broker.md", "../../README.md"})
}
