package commands

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/doctor"
	"banmesh/internal/settings"
)

func newRunCommand(p *paths) *cobra.Command {
	var level slog.LevelVar
	var verbose, quiet bool
	c := &cobra.Command{
		Use:     "run",
		Short:   "Start a node",
		Example: "  agent run\n  agent run --config-dir ./config --state-dir ./state",
		Long: `Start a node. Without any configuration it looks for failed SSH logins, bans who fails too often (as root, in the
kernel; otherwise it only says so), publishes nothing and accepts nothing. Once something is shared and no broker is
named, it runs one of its own on a socket in its state directory.
Ctrl-C stops it; bans stay in the kernel until they end, and ` + "`agent firewall flush`" + ` removes them. SIGHUP
makes a service read its configuration again, as ` + "`agent reload`" + ` does.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case verbose:
				level.Set(slog.LevelDebug)
			case quiet:
				level.Set(slog.LevelWarn)
			}
			log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: &level}))
			ctx, again, stop := cli.Hangup(c.Context())
			defer stop()
			return agent.Run(ctx, agent.Options{
				Editions: p.newerEditions,
				Version:  c.Root().Version, ConfigDir: p.config, StateDir: p.state, Socket: p.socket, Log: log, Out: c.OutOrStdout(), Reload: again,
				Machine: thisMachine(),
			})
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "say more")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "say only what is wrong")
	return c
}

func newCheckCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check the configuration, without any side effect",
		Example: "  agent check",
		Long:    "Check the configuration, without any side effect. All faults are shown at once. Beside a running\nagent it is shown which rules a reload would change, and how many bans would begin and end.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			if err := s.CheckFilters(); err != nil {
				return err
			}
			for _, w := range s.Warnings() {
				fmt.Fprintf(c.OutOrStdout(), "warning: %s\n", cli.Printable(w))
			}
			for _, f := range doctor.Withheld(s.Reads()) {
				fmt.Fprintf(c.OutOrStdout(), "warning: %s\n   mend: %s\n", cli.Printable(f.Text), cli.Printable(f.Fix))
			}
			files := s.Files()
			if len(files) == 0 {
				fmt.Fprintf(c.OutOrStdout(), "no configuration in %s: the embedded defaults are used\n", p.config)
				return nil
			}
			for _, f := range files {
				fmt.Fprintf(c.OutOrStdout(), "%s is valid\n", f)
			}
			// A running agent says the effect of a reload; without one the
			// files alone are checked.
			var e control.Effect
			if p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{Dry: true}, &e) == nil {
				printEffect(c.OutOrStdout(), e)
			}
			return nil
		},
	}
}
