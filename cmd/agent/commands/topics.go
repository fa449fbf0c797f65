package commands

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/settings"
)

func newTopicsCommand(p *paths) *cobra.Command {
	return group("topics", "Choose what this node detects, accepts and shares",
		newTopicsListCommand(p),
		newTopicSwitch(p, "subscribe", "Accept bans of trusted operators in a topic", "subscribe", true),
		newTopicSwitch(p, "unsubscribe", "Stop accepting a topic; bans that peers caused in it are lifted", "subscribe", false),
		newTopicsPublishCommand(p),
		newTopicSwitch(p, "unpublish", "Stop sharing this node's own bans in a topic", "publish", false),
		newTopicSwitch(p, "detect", "Find offenders of a topic in this machine's logs", "detect", true),
		newTopicSwitch(p, "ignore", "Stop looking for offenders of a topic", "detect", false),
		newTopicsCheckCommand(), newTopicsPublishDefinitionCommand(p), newTopicsSearchCommand(p), newTopicsShowCommand(p), newTopicsDiffCommand(p), newTopicsInstallCommand(p),
	)
}

// newTopicsPublishCommand shares bans of a topic; given a file, it publishes the definition
// in it.
func newTopicsPublishCommand(p *paths) *cobra.Command {
	c := newTopicSwitch(p, "publish", "Share this node's own bans in a topic, or a topic definition", "publish", true)
	c.Use = "publish TOPIC|FILE.toml"
	c.Example += "\n  agent topics publish /etc/banmesh/topics.d/games.toml"
	c.Long = "Share this node's own bans in a topic. The choice is kept in a file below the configuration directory; a running agent follows at once.\n" +
		"Given a file of a definition, check and publish that, as `agent topics publish-definition` does.\n" + cli.ExitHelp
	share := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !strings.HasSuffix(args[0], ".toml") {
			return share(c, args)
		}
		definition := newTopicsPublishDefinitionCommand(p)
		definition.SetContext(c.Context())
		definition.SetIn(c.InOrStdin())
		definition.SetOut(c.OutOrStdout())
		return definition.RunE(definition, args)
	}
	return c
}

func newTopicsListCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the topics that this agent knows, and what it does with each",
		Example: "  agent topics list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			if set.Unseen() {
				fmt.Fprintln(c.ErrOrStderr(), "note: you may not read which switches were set on the page; they may differ: sudo agent topics list")
			}
			list := set.Topics()
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			t := cli.NewTable(c.OutOrStdout(), "TOPIC", "DETECT", "ACCEPT", "PUBLISH", "WHAT")
			for _, x := range list {
				said := func(name string, on bool) string {
					if slices.Contains(x.OnPage, name) {
						return map[bool]string{true: "yes, page", false: "no, page"}[on]
					}
					return yes(on)
				}
				t.Row(string(x.Topic), said("detect", x.Detect), said("subscribe", x.Subscribe), said("publish", x.Publish), x.Title)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// newTopicSwitch is a command that sets one of a topic's switches in the
// drop-in file and tells the running agent.
func newTopicSwitch(p *paths, use, short, field string, value bool) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: use + " TOPIC", Short: short,
		Example: "  agent topics " + use + " sshd",
		Long:    short + ". The choice is kept in a file below the configuration directory; a running agent follows at once.\n" + cli.ExitHelp,
		Args:    exactly(1, "one topic"),
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
			if i < 0 {
				return &cli.Error{Err: fmt.Errorf("no topic %q is defined", topic), Code: cli.ExitError, Hint: "see `agent topics list`"}
			}
			if field == "detect" && value && !set.Topics()[i].Detectable {
				return fmt.Errorf("topic %q has no filter: nothing in a log shows its offenders", topic)
			}
			written, err := p.edit("topics", func(tree map[string]any) error {
				config.Table(tree, "topics", string(topic))[field] = value
				return nil
			})
			if err != nil {
				return err
			}
			if err := written.overrule(string(topic), field); err != nil {
				return errors.Join(err, written.undo())
			}
			if set, err = settings.Load(p.config, p.state); err != nil {
				return err
			}
			x := set.Topics()[i]
			w := c.OutOrStdout()
			switch {
			case field == "subscribe" && value && len(x.Operators) == 0:
				fmt.Fprintf(w, "%s: accepting, but from nobody yet: trust an operator with `agent peers trust NAME ID`\n", topic)
			case field == "subscribe" && value:
				fmt.Fprintf(w, "%s: accepting from %s (policy: %s)\n", topic, strings.Join(x.Operators, ", "), x.Policy)
			case field == "subscribe":
				fmt.Fprintf(w, "%s: no longer accepting\n", topic)
			case field == "publish" && value:
				fmt.Fprintf(w, "%s: publishing this node's own bans: target, class, count and end; no log line, user name or host name\n", topic)
			case field == "publish":
				fmt.Fprintf(w, "%s: no longer publishing; the feed is withdrawn from the brokers\n", topic)
			case value:
				fmt.Fprintf(w, "%s: looking for offenders\n", topic)
			default:
				fmt.Fprintf(w, "%s: no longer looking for offenders\n", topic)
			}
			return written.takeOver(c, force)
		},
	}
	yesFlag(c, &force)
	return c
}

func newReloadCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "reload", Short: "Make the running agent read its configuration again",
		Example: "  agent check && agent reload\n  agent reload --yes",
		Long: `Make the running agent read its configuration again. With a fault in it, the agent keeps what it has and the fault is
shown. The rules that change are shown before, and how many bans begin and end; where more than a handful ends, it asks.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := settings.Load(p.config, p.state); err != nil {
				return err
			}
			var e control.Effect
			if err := p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{Dry: true}, &e); err != nil {
				return err
			}
			printEffect(c.OutOrStdout(), e)
			err := confirmed(c, yes, func(yes bool) error {
				return p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{Yes: yes}, nil)
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "the running agent follows")
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}
