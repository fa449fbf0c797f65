package commands

import (
	"fmt"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newWithdrawCommand(p *paths) *cobra.Command {
	var asJSON, all, yes bool
	var topic, by, reason, file string
	c := &cobra.Command{
		Use:   "withdraw TARGET... | --all",
		Short: "No longer say that targets are banned, and nothing else",
		Example: "  agent withdraw 203.0.113.7 --reason mistake\n  agent withdraw --all --by fail2ban\n" +
			"  agent withdraw --all --topic sshd --by list:spamhaus",
		Long: `End this node's own claims: of some targets or of all, in one topic or in every one, of one source or of each. Others
read that they ended, and why. Nobody is shielded: a peer's claim still bans, and so does the next offence. To forbid that
as well: ` + "`agent unban`" + `.

--by is the source: detection, hand, fail2ban, crowdsec, list:NAME, or the name that ` + "`agent ban --by`" + ` was given. --reason is
ended (it is over), mistake (it should never have been said) or appeal (somebody asked, and you agreed); readers count mistakes.
Entries of a public list (list:NAME) that are withdrawn count here for nothing until the list itself drops them.
` + cli.ExitHelp,
		Args: anyTargets(&file, &all),
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := targetsOf(c, args, file)
			if err != nil {
				return err
			}
			q := control.WithdrawRequest{All: all, Topic: ban.Topic(topic), By: by}
			if q.Reason, err = ban.ParseReason(reason); err != nil {
				return cli.Usage("--reason: %v", err)
			}
			a := control.WithdrawAnswer{Withdrawn: []control.OwnClaim{}}
			send := func(some []ban.Target) error {
				var part control.WithdrawAnswer
				q.Targets = some
				err := confirmed(c, yes, func(yes bool) error {
					q.Yes = yes
					return p.client().Post(c.Context(), "/v1/withdraw", q, &part)
				})
				a.Withdrawn = append(a.Withdrawn, part.Withdrawn...)
				return err
			}
			if all {
				err = send(nil)
			}
			for part := range parts(targets) {
				if err == nil {
					err = send(part)
				}
			}
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), a)
			}
			return printWithdrawn(c, a)
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&topic, "topic", "", "only this topic (default: all)")
	f.StringVar(&by, "by", "", "only claims of this source (default: all)")
	f.StringVar(&reason, "reason", ban.ReasonEnded.String(), "ended, mistake or appeal")
	f.StringVar(&file, "from-file", "", "a file with one target a line, or - for standard input")
	f.BoolVar(&all, "all", false, "every target")
	yesFlag(c, &yes)
	return c
}

func printWithdrawn(c *cobra.Command, a control.WithdrawAnswer) error {
	w := c.OutOrStdout()
	if len(a.Withdrawn) == 0 {
		fmt.Fprintln(w, "this node had said nothing of that")
		return nil
	}
	const shown = 20
	still := 0
	for i, x := range a.Withdrawn {
		if x.Banned {
			still++
		}
		switch {
		case i == shown:
			fmt.Fprintf(w, "and %s more\n", plural(len(a.Withdrawn)-shown, "claim"))
		case i < shown:
			fmt.Fprintf(w, "withdrew %s in %s, of %s\n", x.Target, x.Topic, cli.Printable(x.By))
		}
	}
	if still > 0 {
		fmt.Fprintf(w, "%s banned all the same, by peers or by another source: `agent explain TARGET` says which\n", verb(still, "target is", "targets are"))
	}
	printKernelLags(w, a.Kernel)
	return nil
}

// verb says a number with the form of the words that it needs.
func verb(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
