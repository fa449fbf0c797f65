package commands

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newUnbanCommand(p *paths) *cobra.Command {
	var asJSON, dispute, all, yes bool
	var topic, lasts, comment, file string
	c := &cobra.Command{
		Use:     "unban TARGET... | --all",
		Short:   "Lift bans, and keep peers from bringing them back",
		Example: "  agent unban 203.0.113.7\n  agent unban 203.0.113.7 --for 30d --dispute\n  agent unban --all --topic sshd",
		Long: `Lift bans here: this node's own claims are withdrawn, and the targets are exempt from every peer's for
7 days or as long as --for says. A peer cannot overrule it; a new offence here bans them again. --dispute tells others
so, signed, in the topics that this node publishes: those whose dispute rule listens to it lift the ban too.
--all is every target that is banned now, in one topic or in all. To end this node's own claims alone, and leave
peers' bans as they are: ` + "`agent withdraw`" + `.
` + cli.ExitHelp,
		Args: anyTargets(&file, &all),
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := targetsOf(c, args, file)
			if err != nil {
				return err
			}
			q := control.UnbanRequest{All: all, Topic: ban.Topic(topic), Dispute: dispute, Comment: comment}
			if q.For, err = seconds("--for", lasts); err != nil {
				return err
			}
			var a control.UnbanAnswer
			if all {
				a, err = unbanPart(c, p, q, yes)
			} else {
				for part := range parts(targets) {
					q.Targets = part
					var some control.UnbanAnswer
					if some, err = unbanPart(c, p, q, yes); err != nil {
						break
					}
					a.Lifted, a.Left, a.Exempt = append(a.Lifted, some.Lifted...), append(a.Left, some.Left...), some.Exempt
					a.Kernel = cmp.Or(some.Kernel, a.Kernel)
				}
			}
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), a)
			}
			printUnbanned(c.OutOrStdout(), a, targets, topic)
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&topic, "topic", "", "only this topic (default: all)")
	f.StringVar(&lasts, "for", "", "how long no peer can ban them (default: 7d)")
	f.BoolVar(&dispute, "dispute", false, "tell others that they should not be banned")
	f.StringVar(&comment, "comment", "", "why, for whoever asks later")
	f.StringVar(&file, "from-file", "", "a file with one target a line, or - for standard input")
	f.BoolVar(&all, "all", false, "everything that is banned now")
	yesFlag(c, &yes)
	return c
}

func unbanPart(c *cobra.Command, p *paths, q control.UnbanRequest, yes bool) (a control.UnbanAnswer, err error) {
	return a, confirmed(c, yes, func(yes bool) error {
		q.Yes = yes
		return p.client().Post(c.Context(), "/v1/unban", q, &a)
	})
}

func printUnbanned(w io.Writer, a control.UnbanAnswer, targets []ban.Target, topic string) {
	if len(a.Lifted) == 0 && len(targets) == 1 {
		fmt.Fprintf(w, "%s was not banned\n", targets[0])
	}
	const shown = 20
	for i, b := range a.Lifted {
		if i == shown {
			fmt.Fprintf(w, "and %s more\n", plural(len(a.Lifted)-shown, "ban"))
			break
		}
		fmt.Fprintf(w, "unbanned %s in %s\n", b.Target, b.Topic)
	}
	in, whom := "", "it"
	if topic != "" {
		in = " in " + topic
	}
	if len(targets) != 1 {
		fmt.Fprintf(w, "lifted %s\n", plural(len(a.Lifted), "ban"))
		whom = "them"
	}
	if !a.Exempt.IsZero() {
		fmt.Fprintf(w, "no peer can ban %s here%s before %s\n", whom, in, clock(a.Exempt))
	}
	for _, l := range a.Left {
		fmt.Fprintf(w, "the kernel still drops packets of %s %s, which this agent does not keep; to end it: %s\n", l.Target, l.Where, l.Fix)
	}
	printKernelLags(w, a.Kernel)
}
