package commands

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newNotifyCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "notify", Short: "Show how the receivers of messages are doing, and send them a test",
		Example: "  agent notify\n  agent notify test\n  agent notify test phone",
		Long: `List the receivers of messages: each [[notify]] of agent.toml is one, by e-mail, webhook, ntfy, Gotify, Matrix, Telegram,
Slack, Discord or MQTT. A message tells of claims that wait, quarantines, mistakes, ends of certificates, silent logs, bans
that do not bite, faults, and once a week of which use the peers were; of single bans where "ban" is among its kinds. Things
of a kind come together, at most one message in five minutes. One that cannot be sent is tried again, also after a restart.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list := []control.Notify{}
			if err := p.client().Get(c.Context(), "/v1/notify", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nobody is told anything: [[notify]] in agent.toml names receivers")
				return nil
			}
			return printReceivers(c.OutOrStdout(), list, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(newNotifyTestCommand(p))
	return c
}

func printReceivers(w io.Writer, list []control.Notify, now time.Time) error {
	t := cli.NewTable(w, "RECEIVER", "BY", "STATE", "LAST SENT", "SENT", "WAITING", "TAKES")
	for _, x := range list {
		last := "never"
		if !x.LastSent.IsZero() {
			last = cli.Short(max(now.Sub(x.LastSent), 0)) + " ago"
		}
		state, colour := receiverState(x, now)
		t.Row(x.Name, x.Type, state, last, strconv.FormatUint(x.Sent, 10), strconv.Itoa(x.Waiting), strings.Join(x.On, ","))
		t.Paint(2, colour)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range list {
		if x.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", x.Name, cli.Wrap(w, len(x.Name)+2, "   ", cli.Printable(receiverError(x, now))))
		}
	}
	return nil
}

// receiverState says in a word how a receiver is doing.
func receiverState(x control.Notify, now time.Time) (string, cli.Colour) {
	switch {
	case !x.Failing.IsZero():
		return "failing", cli.Bad
	case x.QuietUntil.After(now):
		return "quiet", cli.Doubt
	}
	return "ok", cli.Good
}

// receiverError says why the last message was not sent, and when it is tried again.
func receiverError(x control.Notify, now time.Time) string {
	s := x.Error
	if x.Next.After(now) {
		s += "; tried again in " + cli.Short(x.Next.Sub(now))
	}
	return s
}

func newNotifyTestCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "test [NAME]", Short: "Send a test message to every receiver or to one, and say what they answer",
		Example: "  agent notify test\n  agent notify test phone",
		Long: `Send a test message at once, also in quiet hours, and say what each receiver answers. That a server took the message does
not say that somebody sees it: look.
` + "\nExit codes: 0 all took it, 1 error, 2 wrong usage, 3 a receiver did not take it",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly(1, "at most one name")(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			q := control.NotifyTestRequest{}
			if len(args) == 1 {
				q.Name = args[0]
			}
			list := []control.NotifyTest{}
			if err := p.client().Post(c.Context(), "/v1/notify/test", q, &list); err != nil {
				return err
			}
			failed := 0
			for _, x := range list {
				if x.Error != "" {
					failed++
				}
			}
			w := c.OutOrStdout()
			switch {
			case asJSON:
				if err := cli.JSON(w, list); err != nil {
					return err
				}
			case len(list) == 0:
				fmt.Fprintln(w, "nobody is told anything: [[notify]] in agent.toml names receivers")
			}
			for _, x := range list {
				if asJSON {
					break
				}
				head := fmt.Sprintf("%s (%s): ", x.Name, x.Type)
				text := cli.Paint(w, cli.Good, "sent") + ": " + cli.Printable(x.Answer)
				if x.Error != "" {
					text = cli.Paint(w, cli.Bad, "not sent") + ": " + cli.Printable(x.Error)
				}
				fmt.Fprintf(w, "%s%s\n", head, cli.Wrap(w, len(head), "   ", text))
			}
			if failed > 0 {
				return &cli.Error{Err: fmt.Errorf("%s did not take the message", plural(failed, "receiver")), Code: cli.ExitPartly}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
