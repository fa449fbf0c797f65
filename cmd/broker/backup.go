package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newBackupCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy what is retained while the broker serves",
		Long: `Write a consistent copy of the retained messages to a file that does not exist yet. To
restore, stop the broker and put the file in place of retained.db in the state directory.
` + exitHelp,
		Example: "  broker backup /var/backups/retained-$(date +%F).db",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if err := p.client().Post(c.Context(), "/v1/backup", request{Path: path}, nil); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "wrote", path)
			return nil
		},
	}
}
