package commands

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newKickCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "kick CLIENT",
		Short:   "Close a client's connection",
		Long:    "Close the connection of a client, by its identifier. It may come back; `broker ban-key` keeps it away.\n" + exitHelp,
		Example: "  broker kick aaaabbbbccccdddd",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.client().Post(c.Context(), "/v1/kick", request{Client: args[0]}, nil); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "kicked")
			return nil
		},
	}
}
