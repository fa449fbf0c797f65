package commands

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newBanKeyCommand(p *paths) *cobra.Command {
	var undo bool
	c := &cobra.Command{
		Use:   "ban-key OPERATOR-OR-NODE",
		Short: "Stop serving an operator or node",
		Long: `Close the connections of an operator or node, remove what it said from this broker, and
refuse it from now on. Agents that hold its claims keep them until they end: only their
own policy decides about trust.
` + exitHelp,
		Example: "  broker ban-key aaaabbbbccccddddeeeeffffgg\n  broker ban-key --undo aaaabbbbccccddddeeeeffffgg",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var a answer
			if err := p.client().Post(c.Context(), "/v1/ban-key", request{Identity: args[0], Undo: undo}, &a); err != nil {
				return err
			}
			if undo {
				fmt.Fprintln(c.OutOrStdout(), "served again")
			} else {
				fmt.Fprintf(c.OutOrStdout(), "banned; %d retained messages removed\n", a.Removed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&undo, "undo", false, "serve it again")
	return c
}
