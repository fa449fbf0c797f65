package commands

import (
	"fmt"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newPageCommand(p *paths) *cobra.Command {
	return group("page", "Look at this node in a browser", newPageOpenCommand(p), newPageCloseCommand(p))
}

func newPageOpenCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "open", Short: "Print a link that signs one browser in to the node's page, once",
		Example: "  agent page open",
		Long: `Print a link to the node's page, which needs [page] in agent.toml. The link signs one browser in, once, within
ten minutes; the session lasts twelve hours, or two without a look. Whoever has the link commands the node: pass it on
to nobody. A restart of the agent ends all sessions.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var link control.PageLink
			if err := p.client().Post(c.Context(), "/v1/page/open", struct{}{}, &link); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), link)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s\nIt signs one browser in, once, until %s.\n", link.URL, clock(link.Until))
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newPageCloseCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "close", Short: "End every session of the node's page, and every link that nobody used yet",
		Example: "  agent page close",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var closed control.PageClosed
			if err := p.client().Post(c.Context(), "/v1/page/close", struct{}{}, &closed); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "ended %s and %s\n", plural(closed.Sessions, "session"), plural(closed.Links, "unused link"))
			return err
		},
	}
}
