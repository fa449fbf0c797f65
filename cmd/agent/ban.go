package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/span"
)

func newBanCommand(p *paths) *cobra.Command {
	var asJSON bool
	var topic, lasts, class string
	c := &cobra.Command{
		Use:     "ban TARGET",
		Short:   "Ban an address, prefix or wallet by hand",
		Example: "  agent ban 203.0.113.7\n  agent ban 203.0.113.0/24 --topic sshd --for 2d",
		Long: `Ban an address, prefix or wallet by hand, in a topic. It is shared if the topic is published. What is
on the never-ban list is refused. Times read as fail2ban's: 90s, 10m, 6h, 2d, 1w, 1mo, 1y.
` + cli.ExitHelp,
		Args: exactly(1, "the target to ban"),
		RunE: func(c *cobra.Command, args []string) error {
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			request := control.BanRequest{Target: target}
			if request.Topic, err = ban.ParseTopic(topic); err != nil {
				return cli.Usage("--topic: %v", err)
			}
			if request.For, err = seconds("--for", lasts); err != nil {
				return err
			}
			if class != "" {
				v, err := ban.ParseClass(class)
				if err != nil {
					return cli.Usage("--class: %v", err)
				}
				request.Class = &v
			}
			var b control.Ban
			if err := p.client().Post(c.Context(), "/v1/bans", request, &b); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), b)
			}
			fmt.Fprintf(c.OutOrStdout(), "banned %s in %s until %s\n", b.Target, b.Topic, clock(b.Until))
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "topic", "sshd", "the topic")
	c.Flags().StringVar(&lasts, "for", "", "how long (default: the topic's ban time)")
	c.Flags().StringVar(&class, "class", "", "class of offence (default: manual)")
	return c
}

func newUnbanCommand(p *paths) *cobra.Command {
	var asJSON, dispute bool
	var topic, lasts, comment string
	c := &cobra.Command{
		Use:     "unban TARGET",
		Short:   "Lift a ban, and keep peers from bringing it back",
		Example: "  agent unban 203.0.113.7\n  agent unban 203.0.113.7 --for 30d --dispute",
		Long: `Lift a ban here: this node's own claims are withdrawn, and the target is exempt from every peer's for
7 days or as long as --for says. A peer cannot overrule it; a new offence here bans it again. --dispute tells others
so, signed, in the topics that this node publishes: those whose dispute rule listens to it lift the ban too.
` + cli.ExitHelp,
		Args: exactly(1, "the target to unban"),
		RunE: func(c *cobra.Command, args []string) error {
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			request := control.UnbanRequest{Target: target, Topic: ban.Topic(topic), Dispute: dispute, Comment: comment}
			if request.For, err = seconds("--for", lasts); err != nil {
				return err
			}
			var a control.UnbanAnswer
			if err := p.client().Post(c.Context(), "/v1/unban", request, &a); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), a)
			}
			if len(a.Lifted) == 0 {
				fmt.Fprintf(c.OutOrStdout(), "%s was not banned\n", target)
			}
			for _, b := range a.Lifted {
				fmt.Fprintf(c.OutOrStdout(), "unbanned %s in %s\n", b.Target, b.Topic)
			}
			in := ""
			if topic != "" {
				in = " in " + topic
			}
			fmt.Fprintf(c.OutOrStdout(), "no peer can ban it here%s before %s\n", in, clock(a.Exempt))
			for _, l := range a.Left {
				fmt.Fprintf(c.OutOrStdout(), "the kernel still drops packets of %s %s, which this agent does not keep; to end it: %s\n", l.Target, l.Where, l.Fix)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "topic", "", "only this topic (default: all)")
	c.Flags().StringVar(&lasts, "for", "", "how long no peer can ban it (default: 7d)")
	c.Flags().BoolVar(&dispute, "dispute", false, "tell others that it should not be banned")
	c.Flags().StringVar(&comment, "comment", "", "why, for whoever asks later")
	return c
}

func parseTarget(s string) (ban.Target, error) {
	t, err := ban.ParseTarget(s)
	if err != nil {
		return t, &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "give an address (203.0.113.7), a prefix (2001:db8::/64) or a wallet (0x and 40 hex digits)"}
	}
	return t, nil
}

// seconds reads a length of time in fail2ban's abbreviations; "" is 0.
func seconds(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	d, err := span.Parse(s)
	if err != nil {
		return 0, cli.Usage("%s: %v", flag, err)
	}
	if d < time.Second {
		return 0, cli.Usage("%s: %s is too short", flag, s)
	}
	return int64(d / time.Second), nil
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// exactly is cobra.ExactArgs with a sentence that names the missing argument.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return &cli.Error{Err: fmt.Errorf("want %s, got %s", what, plural(len(args), "argument")), Code: cli.ExitUsage, Hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
		}
		return nil
	}
}
