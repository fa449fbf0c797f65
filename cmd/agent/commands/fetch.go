package commands

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/compat/lists"
	"banmesh/internal/compat/lists/fetch"
	"banmesh/internal/settings"
)

func newFetchCommand(p *paths) *cobra.Command {
	var now bool
	var spool string
	c := &cobra.Command{
		Use: "fetch [NAME...]", Short: "Fetch the public lists that have an address, for the agent to read",
		Example: "  agent fetch\n  agent fetch drop --now",
		Long: `Fetch the lists of ` + "`agent lists`" + ` that have an address, those whose time it is, and leave them in the spool directory,
where the agent finds them. It needs no rights and no running agent: systemd's banmesh-fetch.timer runs it as a user of
its own, and cron can. A server is asked for changes alone, over https unless the list allows http; a redirection leads to no
other scheme and to no private address. A list that cannot be had leaves the one of before in its place.
` + "\nExit codes: 0 all well, 1 error, 2 wrong usage, 3 a list could not be had",
		RunE: func(c *cobra.Command, args []string) error {
			all, configured, err := settings.Origins(p.config)
			if err != nil {
				return err
			}
			for _, name := range args {
				if !slices.ContainsFunc(all, func(o lists.Origin) bool { return o.Name == name }) {
					return cli.Hint(fmt.Errorf("no list that has an address is named %q", name), "see `agent lists`")
				}
			}
			f := &fetch.Fetcher{Spool: configured, Version: c.Root().Version, Now: time.Now, Force: now}
			if spool != "" {
				f.Spool = spool
			}
			return fetchLists(c, f, all, args)
		},
	}
	c.Flags().BoolVar(&now, "now", false, "ask although it is not time yet")
	c.Flags().StringVar(&spool, "spool", "", "the directory (default: [fetch] spool, else "+lists.DefaultSpool+")")
	return c
}

// fetchLists fetches the lists that are named, or all of them.
func fetchLists(c *cobra.Command, f *fetch.Fetcher, all []lists.Origin, names []string) error {
	w := c.OutOrStdout()
	unlock, err := fetch.Lock(f.Spool)
	if err != nil {
		return cli.Hint(err, "the spool is %s's: systemctl start banmesh-fetch.service, or sudo -u banmesh-fetch agent fetch", "banmesh-fetch")
	}
	defer func() { _ = unlock() }() // the process ends
	if err := fetch.Tidy(f.Spool, all); err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "no list has an address: agent lists add NAME --url URL --topic TOPIC")
		return nil
	}
	failed := 0
	for _, o := range all {
		if len(names) > 0 && !slices.Contains(names, o.Name) {
			continue
		}
		outcome, err := f.Fetch(c.Context(), o)
		if c.Context().Err() != nil {
			return c.Context().Err()
		}
		if err != nil {
			failed++
			fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", o.Name, cli.Printable(err.Error()))
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", o.Name, map[fetch.Outcome]string{fetch.Changed: "a newer edition", fetch.Unchanged: "no newer one", fetch.NotDue: "asked lately; --now asks all the same"}[outcome])
	}
	if failed > 0 {
		return &cli.Error{Err: fmt.Errorf("%s could not be had; the edition of before stays", verb(failed, "list", "lists")), Code: cli.ExitPartly}
	}
	return nil
}
