package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banmesh/internal/cli"
	"banmesh/internal/cli/clitest"
	"banmesh/internal/settings"
)

func TestTheDocumentationNamesCommandsThatExist(t *testing.T) {
	files, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	compat, err := filepath.Glob("../../../docs/compat/*.md")
	if err != nil || len(compat) == 0 {
		t.Fatal(compat, err)
	}
	files = append(files, compat...)
	clitest.CheckCommands(t, newRootCommand(cli.Program{Name: "agent"}), append(files, "../../../README.md"))
}

func TestTheRecipesAreValidConfiguration(t *testing.T) {
	text, err := os.ReadFile("../../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```toml\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("recipes.md has %d blocks of configuration: the test looks in the wrong place", len(blocks))
	}
	for _, b := range blocks {
		b, _, _ = strings.Cut(b, "```")
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := settings.Load(dir, ""); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
	}
}
