package commands

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/doctor"
)

func newDoctorCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "doctor",
		Short:   "Look for what is wrong with this node, and name the command that mends it",
		Example: "  agent doctor",
		Long: `Look at the configuration, the running agent, its logs and filters, the firewall, the clock, brokers and peers, and
whether the address from which you are logged in is safe from bans. It changes nothing.
` + "\nExit codes: 0 all well, 1 error, 2 wrong usage, 3 something is wrong",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			facts := doctor.Examine(c.Context(), doctor.Options{Config: p.config, State: p.state, Client: p.client(), Enforcer: p.chosen, Editions: p.newerEditions})
			list := doctor.Diagnose(facts, doctor.LoggedInFrom(os.Getenv("SSH_CONNECTION")))
			bad := 0
			for _, f := range list {
				if !f.OK {
					bad++
				}
			}
			if asJSON {
				if err := cli.JSON(c.OutOrStdout(), list); err != nil {
					return err
				}
			} else {
				wide := 0
				for _, f := range list {
					wide = max(wide, len(f.Check))
				}
				printFindings(c.OutOrStdout(), list, wide)
			}
			if bad > 0 {
				return &cli.Error{Err: fmt.Errorf("%s wrong", things(bad)), Code: cli.ExitPartly}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printFindings prints a line each, with its command below. A command stays
// whole, so that it can be copied.
func printFindings(w io.Writer, list []doctor.Finding, wide int) {
	for _, f := range list {
		mark := map[doctor.Level]string{
			doctor.LevelOK: cli.Paint(w, cli.Good, "ok") + "   ", doctor.LevelNote: cli.Paint(w, cli.Doubt, "note") + " ", doctor.LevelWrong: cli.Paint(w, cli.Bad, "WRONG"),
		}[f.Level]
		indent := strings.Repeat(" ", 9+wide)
		fmt.Fprintf(w, "%s  %-*s  %s\n", mark, wide, f.Check, cli.Wrap(w, len(indent), indent, cli.Printable(f.Text)))
		if f.Fix != "" {
			fmt.Fprintf(w, "       fix: %s\n", cli.Printable(f.Fix))
		}
	}
}

func things(n int) string {
	if n == 1 {
		return "1 thing is"
	}
	return fmt.Sprintf("%d things are", n)
}
