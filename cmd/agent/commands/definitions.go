package commands

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/keys"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
	"banmesh/topics"
)

func newTopicsPublishDefinitionCommand(p *paths) *cobra.Command {
	var flags publishing
	var withdraw string
	c := &cobra.Command{
		Use: "publish-definition FILE", Short: "Publish a topic definition of your own, for others to adopt",
		Example: "  agent topics publish-definition /etc/banmesh/topics.d/jellyfin.toml\n  agent topics publish-definition --withdraw jellyfin",
		Long: `Check a topic definition, sign it with the operator's root key and publish it to the network. Operators who trust
you see it with ` + "`agent topics published`" + ` and may adopt it; nothing of it applies anywhere by itself.
` + cli.ExitHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if (withdraw == "") != (len(args) == 1) || len(args) > 1 {
				return cli.Usage("give one file, or --withdraw TOPIC")
			}
			topic, text := ban.Topic(withdraw), ""
			if withdraw != "" {
				if _, err := ban.ParseTopic(withdraw); err != nil {
					return cli.Usage("--withdraw: %v", err)
				}
			} else {
				b, err := readSmall(args[0])
				if err != nil {
					return err
				}
				if len(b) > wire.MaxDefinition {
					return fmt.Errorf("%s has %d bytes; the network carries at most %d", args[0], len(b), wire.MaxDefinition)
				}
				d, err := usable(args[0], b)
				if err != nil {
					return err
				}
				topic, text = d.Name, string(b)
			}
			return flags.sign(c, p, func(o *keys.Store, network string, now time.Time) ([]byte, error) {
				return o.PublishDefinition(network, topic, now, text)
			})
		},
	}
	flags.add(c)
	c.Flags().StringVar(&withdraw, "withdraw", "", "withdraw the definition of this topic")
	return c
}

// usable reads a definition that is to be signed or adopted: all that is wrong
// with it is found before others rely on it.
func usable(name string, text []byte) (*topics.Definition, error) {
	d, err := topics.Parse(name, text)
	if err != nil {
		return nil, err
	}
	if err := detect.Check(name, text, d); err != nil {
		return nil, err
	}
	if d.Detect == nil || d.Detect.Fail2ban != "" {
		return d, nil
	}
	wrong, err := detect.CheckSamples(d, time.Now())
	if err != nil || len(wrong) == 0 {
		return d, err
	}
	faults := make([]error, len(wrong))
	for i, text := range wrong {
		faults[i] = errors.New(text)
	}
	return nil, errors.Join(faults...)
}

func newTopicsCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a topic definition before you use, publish or adopt it",
		Example: "  agent topics check /etc/banmesh/topics.d/jellyfin.toml",
		Long: `Check a topic definition, without any side effect. Beside its form it is checked that every expression compiles, that
no client can choose whom one names, that journal matches ask for a field that no user of the machine can choose, and
that its sample lines are found as they say. All faults are shown at once, with their places. What is published or
adopted is checked so too.
` + cli.ExitHelp,
		Args: exactly(1, "a file"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readSmall(args[0])
			if err != nil {
				return err
			}
			d, err := usable(args[0], b)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "the definition of %s can be used; its %d sample lines are found as they say\n", d.Name, len(d.Samples))
			return err
		},
	}
}

// published asks the running agent for the definitions of those whom the
// configuration names.
func published(c *cobra.Command, p *paths) ([]control.Definition, *settings.Settings, error) {
	set, err := settings.Load(p.config)
	if err != nil {
		return nil, nil, err
	}
	var d control.Documents
	err = p.client().Get(c.Context(), "/v1/documents", nil, &d)
	return d.Definitions, set, err
}

func newTopicsPublishedCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "published", Short: "List the topic definitions that operators you know publish",
		Example: "  agent topics published",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, set, err := published(c, p)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nobody whom this node knows publishes a definition")
				return nil
			}
			t := cli.NewTable(c.OutOrStdout(), "TOPIC", "BY", "SIGNED", "WHAT")
			for _, x := range list {
				name, _ := set.Policy().Name(x.Operator)
				what := ""
				if d, err := topics.Parse(string(x.Topic), []byte(x.Text)); err != nil {
					what = "it cannot be used: this version does not understand it"
				} else {
					what = cli.Printable(d.Title)
				}
				t.Row(string(x.Topic), name, x.Issued.Format(time.DateOnly), what)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newTopicsAdoptCommand(p *paths) *cobra.Command {
	var from string
	var yes bool
	c := &cobra.Command{
		Use: "adopt TOPIC --from NAME", Short: "Show a published topic definition and, when you agree, use it",
		Example: "  agent topics adopt jellyfin --from alice",
		Long: `Show the definition of a topic as an operator publishes it and, when you agree, write it below the configuration
directory. It says which logs of this machine are read and what in them is an offence, so read it. A later version of
the operator's is not taken over by itself: adopt again.
` + cli.ExitHelp,
		Args: exactly(1, "a topic"),
		RunE: func(c *cobra.Command, args []string) error {
			list, set, err := published(c, p)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(x control.Definition) bool {
				name, _ := set.Policy().Name(x.Operator)
				return string(x.Topic) == args[0] && name == from
			})
			if i < 0 {
				return &cli.Error{Err: fmt.Errorf("%q publishes no definition of %q", from, args[0]), Code: cli.ExitError, Hint: "see `agent topics published`"}
			}
			d, err := usable(args[0], []byte(list[i].Text))
			if err != nil {
				return fmt.Errorf("the definition of %s cannot be used: %w", from, err)
			}
			if d.Name != list[i].Topic {
				return fmt.Errorf("the definition of %s at %q is about %q", from, list[i].Topic, d.Name)
			}
			path := filepath.Join(p.config, settings.TopicDirectory, string(d.Name)+".toml")
			out := c.OutOrStdout()
			printForeign(out, list[i].Text)
			if old, err := os.ReadFile(path); err == nil && !bytes.Equal(old, []byte(list[i].Text)) {
				fmt.Fprintf(out, "\nThis replaces %s.\n", path)
			}
			if !yes {
				fmt.Fprint(out, "\nUse this definition here? [y/N] ")
				line := bufio.NewScanner(io.LimitReader(c.InOrStdin(), 64))
				line.Scan()
				if answer := strings.ToLower(strings.TrimSpace(line.Text())); answer != "y" && answer != "yes" {
					return &cli.Error{Err: errors.New("nothing was changed"), Code: cli.ExitError, Hint: "say yes, or use --yes where nobody can answer"}
				}
			}
			if err := config.WriteAtomic(path, []byte(list[i].Text), 0o644); err != nil {
				return err
			}
			if _, err := settings.Load(p.config); err != nil {
				return err
			}
			fmt.Fprintf(out, "%s is defined as %s publishes it; next: `agent topics subscribe %s`, `agent topics detect %s`\n", d.Name, from, d.Name, d.Name)
			return reload(c, p, path)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the operator whose definition it is")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// printForeign shows a text that another wrote, line by line and harmless to a
// terminal.
func printForeign(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "  | %s\n", cli.Printable(strings.TrimRight(line, "\r\n")))
	}
}
