package commands

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
	"banmesh/internal/cli"
	"banmesh/internal/cli/clitest"
)

// The JSON of the broker's commands is in docs/broker.md, as that of the agent's is
// in docs/json.md.
func TestTheJSONOfEveryCommandIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/broker.md")
	if err != nil {
		t.Fatal(err)
	}
	answers := map[string]any{"broker status": broker.Status{}, "broker feeds": []broker.Feed{}, "broker clients": []broker.Session{}}
	for name, v := range answers {
		want := "`" + name + " --json`:\n```\n" + clitest.DescribeJSON(reflect.TypeOf(v)) + "```\n"
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/broker.md does not have\n%s", want)
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		_, ok := answers[c.CommandPath()]
		if has := c.Flags().Lookup("json") != nil; has != ok {
			t.Errorf("%s has --json: %v, documented: %v", c.CommandPath(), has, ok)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(cli.Program{Name: "broker"}))
}
