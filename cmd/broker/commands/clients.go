package commands

import (
	"strconv"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
	"banmesh/internal/cli"
)

func newClientsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "clients",
		Short:   "Who is connected",
		Long:    "List the clients: identifier, who they proved to be, subscriptions, bytes that wait for them. Addresses are shown only where the configuration logs them.\n" + exitHelp,
		Example: "  broker clients",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var clients []broker.Session
			if err := p.client().Get(c.Context(), "/v1/clients", nil, &clients); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), clients)
			}
			t := cli.NewTable(c.OutOrStdout(), "CLIENT", "WHO", "CONNECTED", "SUBSCRIPTIONS", "QUEUED", "ADDRESS")
			for _, s := range clients {
				t.Row(s.ID, s.Who, strconv.FormatBool(s.Connected), strconv.Itoa(s.Subscriptions), strconv.Itoa(s.Queued), s.Address)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
