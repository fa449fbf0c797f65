package commands

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/ledger"
	"banmesh/internal/span"
)

func newPolicyCommand(p *paths) *cobra.Command {
	return group("policy", "Try the rules of the configuration on what happened", newPolicyTestCommand(p))
}

// policyTest is the answer of `agent policy test`.
type policyTest struct {
	Configured ledger.Trial `json:"configured"`
	// Other is the trial of the configuration in --against, Gained and Lost how
	// many targets it would have banned more and less.
	Other  *ledger.Trial `json:"other,omitempty"`
	Gained int           `json:"gained,omitempty"`
	Lost   int           `json:"lost,omitempty"`
}

func newPolicyTestCommand(p *paths) *cobra.Command {
	var asJSON bool
	var last, against string
	c := &cobra.Command{
		Use:     "test [LOG...]",
		Short:   "Replay what peers claimed and who came here against the configured rules",
		Example: "  agent policy test --last 7d\n  agent policy test --last 7d --against ./new-config\n  agent policy test history/2026-03-01.log",
		Long: `Replay what peers claimed and which offenders came here against the rules of the configuration: what they would have
banned, how many offenders were banned or watched before they came, and which claims were of something that must never
be banned. With --against a second configuration directory is tried on the same events and the difference is shown. The
history is kept by the agent for a week; a LOG is a file of it. Nothing is changed.
` + cli.ExitHelp,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := span.Parse(last)
			if err != nil {
				return cli.Usage("--last: %v", err)
			}
			feed := func(f func(ledger.Event) error) error {
				if len(args) == 0 {
					err := ledger.HistorySince(filepath.Join(p.state, agent.HistoryDirectory), time.Now().Add(-d), f)
					if errors.Is(err, ledger.ErrUnknown) {
						return cli.Hint(err, "a running agent writes it; or give the files of another one's history")
					}
					return err
				}
				for _, name := range args {
					file, err := os.Open(name)
					if err != nil {
						return fmt.Errorf("reading a history: %w", err)
					}
					err = ledger.ReadHistory(file, f)
					file.Close()
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
				}
				return nil
			}
			var result policyTest
			if result.Configured, err = try(c, p.config, p.state, feed); err != nil {
				return err
			}
			if against != "" {
				other, err := try(c, against, "", feed)
				if err != nil {
					return err
				}
				result.Other = &other
				had := map[ban.Target]bool{}
				for _, t := range result.Configured.Targets {
					had[t] = true
				}
				result.Lost = len(had)
				for _, t := range other.Targets {
					if had[t] {
						result.Lost--
					} else {
						result.Gained++
					}
				}
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), result)
			}
			printPolicyTrial(c.OutOrStdout(), "as configured", result.Configured)
			if result.Other != nil {
				printPolicyTrial(c.OutOrStdout(), "with "+against, *result.Other)
				fmt.Fprintf(c.OutOrStdout(), "difference: %s more banned, %s fewer\n", plural(result.Gained, "target"), plural(result.Lost, "target"))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&last, "last", "7d", "how far back, in the agent's own history")
	c.Flags().StringVar(&against, "against", "", "a second configuration directory to compare with")
	return c
}

// try replays events against the rules of a configuration directory and the switches of
// a state directory.
func try(c *cobra.Command, config, state string, feed func(func(ledger.Event) error) error) (ledger.Trial, error) {
	t, warn, err := agent.TryPolicy(c.Context(), config, state, nil, feed)
	if warn != nil {
		fmt.Fprintf(c.ErrOrStderr(), "agent: warning: the never-ban list may lack entries: %s\n", cli.Printable(warn.Error()))
	}
	return t, err
}

func printPolicyTrial(w io.Writer, name string, t ledger.Trial) {
	if t.From.IsZero() {
		fmt.Fprintf(w, "%s: nothing happened\n", name)
		return
	}
	fmt.Fprintf(w, "%s, %s to %s:\n", name, clock(t.From), clock(t.To))
	fmt.Fprintf(w, "  peers made %s: %s banned, %s watched, %s waiting\n", plural(t.Claims, "claim"), plural(t.Banned, "target"), plural(t.Watched, "target"), plural(t.Held, "claim"))
	share := 0
	if t.Offenders > 0 {
		share = 100 * (t.Stopped + t.Caught) / t.Offenders
	}
	fmt.Fprintf(w, "  %s came here: %d were banned before, %d watched (%d %%)\n", plural(t.Offenders, "offender"), t.Stopped, t.Caught, share)
	for _, x := range t.Conflicts {
		fmt.Fprintf(w, "  conflict: %s claims %s: %s\n", cli.Printable(x.Name), x.Target, cli.Printable(x.Why))
	}
}
