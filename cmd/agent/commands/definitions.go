package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
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
you see it with ` + "`agent topics search`" + ` and may install it; nothing of it applies anywhere by itself.
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
	return d, proven(name, text, d)
}

// proven says all that is wrong with a definition, once it is read from text.
func proven(name string, text []byte, d *topics.Definition) error {
	if err := detect.Check(name, text, d); err != nil || d.Detect == nil {
		return err
	}
	if d.Detect.Fail2ban != "" {
		return cli.Hint(fmt.Errorf("%s: it names a filter of fail2ban's, which is another one elsewhere", name), "write its expressions into rules")
	}
	wrong, err := detect.CheckSamples(d, time.Now())
	if err != nil {
		return err
	}
	faults := make([]error, len(wrong))
	for i, text := range wrong {
		faults[i] = errors.New(text)
	}
	return errors.Join(faults...)
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
func published(ctx context.Context, p *paths) ([]control.Definition, *settings.Settings, error) {
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return nil, nil, err
	}
	var d control.Documents
	err = p.client().Get(ctx, "/v1/documents", nil, &d)
	return d.Definitions, set, err
}

// printForeign shows a text that another wrote, line by line and harmless to a
// terminal.
func printForeign(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "  | %s\n", cli.Printable(strings.TrimRight(line, "\r\n")))
	}
}
