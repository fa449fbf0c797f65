package commands

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/broker"
	"banmesh/internal/cli"
)

func newStatusCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "How does the broker do?",
		Long:    "Show listeners, clients, what is retained, and whether the disk takes it.\n" + exitHelp,
		Example: "  broker status\n  broker status --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s broker.Status
			if err := p.client().Get(c.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			out := c.OutOrStdout()
			if asJSON {
				return cli.JSON(out, s)
			}
			fmt.Fprintf(out, "serving    %s for %s\n", networkText(s.Network), cli.Short(time.Since(s.Since).Round(time.Second)))
			if s.Open {
				fmt.Fprintln(out, "open       every topic and payload, signed or not")
			}
			for _, l := range s.Listeners {
				fmt.Fprintf(out, "listener   %s\n", l)
			}
			printCertificates(out, s.Certificates, time.Now())
			fmt.Fprintf(out, "clients    %d of at most %d, %d subscriptions\n", s.Connections, s.MaxConnection, s.Subscriptions)
			fmt.Fprintf(out, "retained   %d messages, %d KiB\n", s.Retained.Messages, s.Retained.Bytes/1024)
			switch {
			case s.Retained.Fault != "":
				fmt.Fprintf(out, "disk       %s; %d changes wait\n", cli.Printable(s.Retained.Fault), s.Retained.Pending)
			default:
				fmt.Fprintf(out, "disk       well, %d groups written\n", s.Retained.Commits)
			}
			printCounts(out, "logins", "turned away", s.TurnedAway)
			printCounts(out, "admission", "publications refused", s.Refused)
			if len(s.BannedKeys) > 0 {
				fmt.Fprintf(out, "banned     %d operators and nodes\n", len(s.BannedKeys))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printCounts says how many were not served and why, the most first, where
// there were any.
func printCounts(w io.Writer, what, how string, counts map[string]uint64) {
	if len(counts) == 0 {
		return
	}
	var sum uint64
	why := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	for i, reason := range why {
		sum += counts[reason]
		why[i] = fmt.Sprintf("%s %d", cli.Printable(reason), counts[reason])
	}
	fmt.Fprintf(w, "%-10s %d %s since the start: %s\n", what, sum, how, strings.Join(why, ", "))
}

// printCertificates says when each ends, and which should have been renewed.
func printCertificates(w io.Writer, list []broker.Certificate, now time.Time) {
	for _, c := range list {
		left, text := c.Ends.Sub(now), ""
		switch {
		case left <= 0:
			text = "ended " + c.Ends.Format(time.RFC3339) + ": clients refuse it; renew it, the broker reads the new file by itself"
		case left < broker.RenewBy:
			text = "ends in " + cli.Short(left.Round(time.Minute)) + ": renew it, the broker reads the new file by itself"
		default:
			text = "ends in " + cli.Short(left.Round(time.Hour))
		}
		fmt.Fprintf(w, "certificate of %s %s\n", c.Listener, text)
	}
}
