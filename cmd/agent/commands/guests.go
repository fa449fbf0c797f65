package commands

import (
	"fmt"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newGuestsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "guests", Short: "List who lately logged in or worked here, whom no peer bans",
		Example: "  agent guests\n  agent guests --json | jq length\n  agent guests remove 203.0.113.7",
		Long: `List the guests: addresses that lately logged in (log lines of a login that succeeded) or, in topics whose definition says
so, moved enough bytes. No peer and no weak evidence bans them, and it takes more of their own strong evidence here. A
ban by a person holds for guests too. IPv6 counts by /64. The list stays on this node, has at most 100,000 entries, and
each ends 30 days after its last success: [guests] for = "30d" in agent.toml, or enabled = false.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list := []control.Guest{}
			if err := p.client().Get(c.Context(), "/v1/guests", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no guests: nobody has logged in since guests are kept, or no topic's definition has success lines")
				return nil
			}
			t := cli.NewTable(c.OutOrStdout(), "GUEST", "BY", "TOPIC", "LAST", "UNTIL")
			for _, g := range list {
				by := "login"
				if g.Worked {
					by = "bytes"
				}
				guest := g.Prefix.String()
				if g.Prefix.IsSingleIP() {
					guest = g.Prefix.Addr().String()
				}
				t.Row(guest, by, string(g.Topic), clock(g.Last), clock(g.Until))
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(newGuestsRemoveCommand(p))
	return c
}

func newGuestsRemoveCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "remove TARGET", Short: "End a guest, such as one whose account was stolen",
		Example: "  agent guests remove 203.0.113.7",
		Long:    "End the guests that an address is or a prefix has: peers' bans of them hold again. The next login makes a guest again.\n" + cli.ExitHelp,
		Args:    exactly(1, "an address or a prefix"),
		RunE: func(c *cobra.Command, args []string) error {
			target, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			var n control.CountAnswer
			if err := p.client().Post(c.Context(), "/v1/guests/remove", control.GuestRequest{Target: target}, &n); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "ended %s\n", plural(n.Count, "guest"))
			return nil
		},
	}
}
