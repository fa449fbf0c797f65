package commands

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
	"banmesh/internal/cli"
)

func newFeedsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "feeds",
		Short:   "What is retained, by feed",
		Long:    "List every feed and operator's document that the broker holds: name, messages, size, newest number, when it was last heard.\n" + exitHelp,
		Example: "  broker feeds\n  broker feeds --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var feeds []broker.Feed
			if err := p.client().Get(c.Context(), "/v1/feeds", nil, &feeds); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), feeds)
			}
			t := cli.NewTable(c.OutOrStdout(), "FEED", "MESSAGES", "BYTES", "EPOCH", "NUMBER", "HEARD")
			for _, f := range feeds {
				t.Row(f.Name, strconv.Itoa(f.Messages), strconv.Itoa(f.Bytes), strconv.FormatUint(f.Epoch, 10), strconv.FormatUint(f.Number, 10),
					cli.Short(time.Since(f.Heard))+" ago")
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
