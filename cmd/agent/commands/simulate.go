package commands

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/settings"
)

func newSimulateCommand(p *paths) *cobra.Command {
	return group("simulate", "Find offenders of a topic without banning them",
		newSimulateSwitch(p, "on", "Find and count offenders of a topic, and ban none of them", true),
		newSimulateSwitch(p, "off", "Ban offenders of a topic again", false),
	)
}

func newSimulateSwitch(p *paths, use, short string, value bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " TOPIC", Short: short,
		Example: "  agent simulate " + use + " sshd",
		Long: short + `. Whom it would have banned is in the agent's log, and ` + "`agent status TOPIC`" + ` counts them.
Nothing of the kind is published. Bans that trusted peers cause are not touched: that is what
` + "`observe = true`" + ` in agent.toml is for. The choice is kept in a file below the configuration
directory; a running agent follows at once.
` + cli.ExitHelp,
		Args: exactly(1, "one topic"),
		RunE: func(c *cobra.Command, args []string) error {
			topic, err := ban.ParseTopic(args[0])
			if err != nil {
				return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "see `agent topics list`"}
			}
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(set.Topics(), func(x settings.Topic) bool { return x.Topic == topic })
			switch {
			case i < 0:
				return &cli.Error{Err: fmt.Errorf("no topic %q is defined", topic), Code: cli.ExitError, Hint: "see `agent topics list`"}
			case !set.Topics()[i].Detect:
				return cli.Hint(fmt.Errorf("no offenders of %s are looked for here, so there is nothing to simulate", topic), "`agent topics detect %s` looks for them", topic)
			}
			path, err := config.EditDropIn(p.config, "topics", func(tree map[string]any) error {
				t := config.Table(tree, "topics", string(topic))
				if value {
					t["simulate"] = true
				} else {
					delete(t, "simulate")
				}
				config.Prune(tree)
				return nil
			})
			if err != nil {
				return err
			}
			if value {
				fmt.Fprintf(c.OutOrStdout(), "%s: finding offenders, banning none of them\n", topic)
			} else {
				fmt.Fprintf(c.OutOrStdout(), "%s: banning offenders again\n", topic)
			}
			return reload(c, p, path)
		},
	}
}
