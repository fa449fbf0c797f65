package commands

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/neverban"
)

func newAllowCommand(p *paths) *cobra.Command {
	return group("allow", "Choose what is never banned here, whoever asks for it",
		newAllowAddCommand(p), newAllowListCommand(p), newAllowRemoveCommand(p), newAllowPackCommand(p))
}

func newAllowAddCommand(p *paths) *cobra.Command {
	var asJSON, yes bool
	var lasts, comment string
	c := &cobra.Command{
		Use:     "add TARGET",
		Short:   "Never ban a target, and lift the bans that overlap it",
		Example: "  agent allow add 203.0.113.7 --comment \"the office\"\n  agent allow add 2001:db8::/48 --for 30d\n  agent allow add home.example.org",
		Long: `Never ban a target: an address, a prefix, a wallet or a host by its name. Bans in force that overlap it are lifted at once, this node's
own too, and neither peers nor this node's own detection can bring them back until the entry ends. Of a host name the
addresses count that it has, looked up again every few minutes; the last ones where no name server answers, with a warning.
` + cli.ExitHelp,
		Args: exactly(1, "the target to allow"),
		RunE: func(c *cobra.Command, args []string) error {
			asked, err := seconds("--for", lasts)
			if err != nil {
				return err
			}
			if neverban.IsName(args[0]) {
				return allowName(c, p, args[0], comment, asked, yes)
			}
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			q := control.AllowRequest{Target: target, Comment: comment, For: asked}
			var a control.UnbanAnswer
			err = confirmed(c, yes, func(yes bool) error {
				q.Yes = yes
				return p.client().Post(c.Context(), "/v1/allow", q, &a)
			})
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), a)
			}
			until := "until you remove it"
			if !a.Exempt.IsZero() {
				until = "until " + clock(a.Exempt)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is never banned here %s\n", target, until)
			for _, b := range a.Lifted {
				fmt.Fprintf(c.OutOrStdout(), "lifted the ban of %s in %s\n", b.Target, b.Topic)
			}
			printKernelLags(c.OutOrStdout(), a.Kernel)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&lasts, "for", "", "how long (default: for good)")
	c.Flags().StringVar(&comment, "comment", "", "why, for whoever reads the list")
	yesFlag(c, &yes)
	return c
}

func newAllowListCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List what is never banned here, and why",
		Example: "  agent allow list",
		Long: `List what is never banned here: what a person allowed or unbanned, and what the agent found by itself (its own
addresses, gateways, resolvers, brokers, who is logged in), and what lists say. Of a "shared" address, behind which
many people are, what peers claim is watched for an hour and bans nothing by itself; this node's own detection still does.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s shields
			if err := p.client().Get(c.Context(), "/v1/allow", nil, &s.Exemptions); err != nil {
				return err
			}
			if err := p.client().Get(c.Context(), "/v1/never-ban", nil, &s.NeverBan); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), s)
			}
			t := cli.NewTable(c.OutOrStdout(), "TARGET", "SOURCE", "UNTIL", "WHY")
			for _, e := range s.Exemptions {
				source := "unban"
				if e.Allow {
					source = "allow"
				}
				if e.Topic != "" {
					source += " in " + string(e.Topic)
				}
				t.Row(e.Target.String(), source, end(e.Until), cmp.Or(e.Comment, "by hand"))
			}
			for _, e := range s.NeverBan {
				t.Row(e.Prefix.String(), string(e.Source), end(e.Until), e.Reason)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// shields are the targets that are never banned, as a listing.
type shields struct {
	Exemptions []control.Exemption `json:"exemptions"`
	NeverBan   []control.NeverBan  `json:"never_ban"`
}

func end(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return clock(t)
}

func newAllowRemoveCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "remove TARGET", Short: "End an entry of `agent allow add`, or what `agent unban` left",
		Example: "  agent allow remove 203.0.113.7",
		Long:    "End an entry of `agent allow add`, or the shield that `agent unban` left. What claims the target then still, bans it again.\n" + cli.ExitHelp,
		Args:    exactly(1, "the target"),
		RunE: func(c *cobra.Command, args []string) error {
			if neverban.IsName(args[0]) {
				return disallowName(c, p, args[0])
			}
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			var a control.AllowRemoveAnswer
			if err := p.client().Post(c.Context(), "/v1/allow/remove", control.AllowRequest{Target: target}, &a); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is no longer exempt\n", target)
			for _, b := range a.Banned {
				fmt.Fprintf(c.OutOrStdout(), "banned %s in %s until %s\n", b.Target, b.Topic, clock(b.Until))
			}
			printKernelLags(c.OutOrStdout(), a.Kernel)
			return nil
		},
	}
}
