package commands

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/cli/clitest"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/settings"
	"banmesh/internal/wallet/suspects"
	"banmesh/internal/wire"
)

var update = flag.Bool("update", false, "write docs/json.md and the goldens anew")

// answers are the output of commands with --json. Those of filter test and key card
// describe foreign text and are left open.
var answers = map[string]any{
	"agent allow add":         control.UnbanAnswer{},
	"agent allow list":        shields{},
	"agent allow pack list":   []settings.Pack{},
	"agent ban":               control.Ban{},
	"agent bans":              []control.Ban{},
	"agent bouncers":          []control.Bouncer{},
	"agent denylist list":     []denial{},
	"agent doctor":            []doctor.Finding{},
	"agent events":            control.Event{},
	"agent explain":           control.Explanation{},
	"agent explain-line":      []detect.Explanation{},
	"agent feeds":             []control.Feed{},
	"agent filter test":       nil,
	"agent firewall check":    firewallReport{},
	"agent firewall show":     firewall.Summary{},
	"agent guests":            []control.Guest{},
	"agent history":           control.EventPage{},
	"agent hold approve":      control.CountAnswer{},
	"agent hold list":         []control.Hold{},
	"agent hold reject":       control.CountAnswer{},
	"agent key card":          wire.Description{},
	"agent key show":          keyReport{},
	"agent lists":             []control.PublicList{},
	"agent lists show":        control.PublicList{},
	"agent livepeer gate":     control.GateStatus{},
	"agent livepeer suspects": suspects.Report{},
	"agent network show":      invitationReport{},
	"agent notify":            []control.Notify{},
	"agent notify test":       []control.NotifyTest{},
	"agent pair":              pairReport{},
	"agent page open":         control.PageLink{},
	"agent peers":             []control.Peer{},
	"agent peers list":        []settings.Peer{},
	"agent peers lists":       []control.TrustList{},
	"agent peers show":        []control.Peer{},
	"agent policy test":       policyTest{},
	"agent replay":            detect.Decision{},
	"agent status":            control.Status{},
	"agent tap":               federation.Tapped{},
	"agent topics list":       []settings.Topic{},
	"agent topics search":     []offered{},
	"agent unban":             control.UnbanAnswer{},
	"agent undo":              control.CountAnswer{},
	"agent withdraw":          control.WithdrawAnswer{},
}

const jsonHead = `# JSON

What commands print with ` + "`--json`" + `, for scripts. It is a promise: a name that stands here keeps its meaning until a major version, names may be added, and a test compares this page with the
program (` + "`go test ./cmd/agent/commands -run JSON -update`" + ` writes it). The same JSON answers on the control socket.

- A time is RFC 3339 in UTC; a length of time is text as in the configuration: ` + "`\"1h 30m\"`" + `, ` + "`\"-1\"`" + ` for ever; a size is a number of bytes. No number is a time.
- A listing is an array, ` + "`[]`" + ` where nothing is listed, never ` + "`null`" + `.
- A name with ` + "`?`" + ` is left out where it says nothing. ` + "`agent replay`" + `, ` + "`agent events`" + `, ` + "`agent tap`" + `, ` + "`agent pair`" + ` and ` + "`agent filter test`" + ` print an object a line.
- Characters that a terminal must not get are escapes.
`

func TestTheJSONOfEveryCommandIsDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(jsonHead)
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(&b, "\n## `%s --json`\n", name)
		if answers[name] == nil {
			b.WriteString("An object a line of the log: `line`, and which rules match.\n")
			continue
		}
		b.WriteString("```\n")
		b.WriteString(clitest.DescribeJSON(reflect.TypeOf(answers[name])))
		b.WriteString("```\n")
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
	walk(newRootCommand(cli.Program{Name: "agent"}))
	golden(t, "../../../docs/json.md", b.String())
}

// golden compares a text with a file, or writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(want, []byte(got)) {
		t.Errorf("%s differs (%v): go test ./cmd/agent/commands -update, if that is meant. Now:\n%s", path, err, got)
	}
}
