package commands

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
	"banmesh/internal/cli"
)

func newHashCommand() *cobra.Command {
	var generate bool
	c := &cobra.Command{
		Use:     "hash",
		Short:   "Make the hash of a password, for the configuration",
		Long:    "Read a password from standard input and print its hash for users.NAME.hash.\n" + exitHelp,
		Example: "  broker hash --generate\n  broker hash < password.txt",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			password := rand.Text()
			if generate {
				fmt.Fprintln(c.OutOrStdout(), "password:", password)
			} else {
				line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
				if password = strings.TrimRight(line, "\r\n"); password == "" {
					return cli.Hint(fmt.Errorf("no password on standard input (%w)", err), "`broker hash --generate` makes one")
				}
			}
			hash, err := broker.HashPassword(password)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "hash:    ", hash)
			return nil
		},
	}
	c.Flags().BoolVar(&generate, "generate", false, "make a password too")
	return c
}
