package commands

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newHoldCommand(p *paths) *cobra.Command {
	return group("hold", "Decide about peers' claims that wait because they are unusual or too many",
		newHoldListCommand(p), newHoldSettleCommand(p, true), newHoldSettleCommand(p, false))
}

func newHoldListCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List what waits, whose it is and why",
		Example: "  agent hold list",
		Long: `List claims that wait. A feed that changes more than it usually does waits for a person; what is over an operator's
budget is let in as the budget grows back. What waits is watched meanwhile where the topic's watch rule says so. Without a person a
feed is let in again after a day, at its hourly budget; what is more than is kept of a peer is not here at all.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []control.Hold
			if err := p.client().Get(c.Context(), "/v1/hold", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing waits")
				return nil
			}
			if err := printHolds(c.OutOrStdout(), list); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "decide with `agent hold approve PEER` or `agent hold reject PEER`")
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printHolds(w io.Writer, list []control.Hold) error {
	t := cli.NewTable(w, "PEER", "TOPIC", "WAITING", "COUNTED", "WHY", "SOME OF THEM")
	for _, h := range list {
		sample := make([]string, 0, len(h.Sample))
		for _, s := range h.Sample {
			sample = append(sample, s.String())
		}
		t.Row(h.Name, string(h.Topic), strconv.Itoa(h.Claims), strconv.Itoa(h.Live), h.Why, strings.Join(sample, " "))
	}
	return t.Flush()
}

func newHoldSettleCommand(p *paths, approve bool) *cobra.Command {
	use, short, done := "reject", "Let what waits of a peer never count, until it withdraws it", "rejected"
	if approve {
		use, short, done = "approve", "Let what waits of a peer count", "approved"
	}
	example := fmt.Sprintf("  agent hold %s alice\n  agent hold %s alice --topic sshd", use, use)
	long := short + ". The limits of live bans and of addresses stay in force."
	if approve {
		example += "\n  agent hold approve alice --for 6h"
		long += " With --for,\nwhat it claims until then is let in without asking again: for a peer under attack."
	}
	var asJSON bool
	var topic, lasts string
	c := &cobra.Command{
		Use: use + " PEER", Short: short,
		Example: example,
		Long:    long + "\n" + cli.ExitHelp,
		Args:    exactly(1, "a peer's name"),
		RunE: func(c *cobra.Command, args []string) error {
			if topic != "" {
				if _, err := ban.ParseTopic(topic); err != nil {
					return cli.Usage("--topic: %v", err)
				}
			}
			open, err := seconds("--for", lasts)
			if err != nil {
				return err
			}
			var d control.CountAnswer
			if err := p.client().Post(c.Context(), "/v1/hold/"+use, control.PeerRequest{Peer: args[0], Topic: ban.Topic(topic), For: open}, &d); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), d)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s of %s\n", done, plural(d.Count, "claim"), args[0])
			if open > 0 {
				fmt.Fprintf(c.OutOrStdout(), "what it claims until %s is let in too\n", clock(time.Now().Add(time.Duration(open)*time.Second)))
			}
			printKernelLags(c.OutOrStdout(), d.Kernel)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "topic", "", "only this topic (default: all)")
	if approve {
		c.Flags().StringVar(&lasts, "for", "", "let in what comes for this long too, at most 30d")
	}
	return c
}

func newUndoCommand(p *paths) *cobra.Command {
	var asJSON, release, yes bool
	var comment string
	c := &cobra.Command{
		Use:     "undo PEER",
		Short:   "Drop everything that a peer caused here, and stop believing it",
		Example: "  agent undo mallory --comment \"bans our customers\"\n  agent undo mallory --release",
		Long: `Drop everything that a peer caused here: its claims count for nothing from now on, in every topic, though it stays in
the configuration. --release ends that, also after an automatic quarantine of the peer or of one of its feeds, and forgets
the peer's strikes.
` + cli.ExitHelp,
		Args: exactly(1, "a peer's name"),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/v1/peers/undo"
			if release {
				path = "/v1/peers/release"
			}
			var d control.CountAnswer
			err := confirmed(c, yes, func(yes bool) error {
				return p.client().Post(c.Context(), path, control.PeerRequest{Peer: args[0], Why: comment, Yes: yes}, &d)
			})
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return cli.JSON(c.OutOrStdout(), d)
			case release:
				fmt.Fprintf(c.OutOrStdout(), "%s counts again\n", args[0])
			default:
				fmt.Fprintf(c.OutOrStdout(), "lifted %s that rested on %s; it counts for nothing until `agent undo %s --release`\n", plural(d.Count, "ban"), args[0], args[0])
			}
			printKernelLags(c.OutOrStdout(), d.Kernel)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&release, "release", false, "let the peer count again")
	yesFlag(c, &yes)
	c.Flags().StringVar(&comment, "comment", "", "why, for whoever asks later")
	return c
}
