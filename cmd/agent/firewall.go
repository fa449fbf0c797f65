package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/firewall"
)

func newFirewallCommand(p *paths) *cobra.Command {
	return group("firewall", "Look at the kernel's bans, and end them in an emergency",
		newFirewallShowCommand(p), newFirewallCheckCommand(p), newFirewallFlushCommand(p),
		newFirewallPanicCommand(p), newFirewallResumeCommand(p))
}

// firewallTable gives the table that the configuration names. An emergency
// command must work with a broken configuration, too.
func firewallTable(p *paths) string {
	if l, err := config.Load(p.config); err == nil && l.Firewall.Table != "" {
		return l.Firewall.Table
	}
	return firewall.DefaultTable
}

func newFirewallShowCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "show",
		Short:   "Show what the kernel holds, quickly at any size",
		Example: "  agent firewall show\n  agent firewall show --json | jq .counters",
		Long: `Show how many bans the kernel holds and what they have met, without an agent. It takes milliseconds where
nft's own listing of a million bans takes a minute; ` + "`nft -t list table inet banmesh`" + ` prints the rules alone.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := firewall.Inspect(firewallTable(p))
			if err != nil {
				return firewallError(err)
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), s)
			}
			return printFirewall(c.OutOrStdout(), s)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printFirewall(w io.Writer, s firewall.Summary) error {
	switch {
	case s.Off:
		fmt.Fprintf(w, "enforcement was switched off by hand; `agent firewall resume` switches it on\n")
	case !s.Present:
		fmt.Fprintf(w, "the kernel has no table inet %s: nothing is enforced\n", s.Table)
	}
	if !s.Present {
		return nil
	}
	owner := ""
	if s.Owned {
		owner = ", owned by the running agent"
	}
	fmt.Fprintf(w, "table inet %s%s\n\n", s.Table, owner)
	t := cli.NewTable(w, "SET", "HOLDS", "ENTRIES")
	for _, m := range s.Maps {
		entries := "unknown"
		if m.Known {
			entries = strconv.FormatUint(uint64(m.Elements), 10)
		}
		t.Row(m.Name, m.Holds, entries)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = cli.NewTable(w, "TOPIC", "PACKETS", "BYTES")
	for _, topic := range slices.Sorted(maps.Keys(s.Counters)) {
		t.Row(topic, strconv.FormatUint(s.Counters[topic].Packets, 10), strconv.FormatUint(s.Counters[topic].Bytes, 10))
	}
	return t.Flush()
}

func newFirewallCheckCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "check",
		Short:   "Say whether bans can be enforced here, and who else filters packets",
		Example: "  agent firewall check",
		Long: `Say whether bans can be enforced here, which of the kernel's newer features are used, and in which order
packets meet this and other programs' chains. It changes nothing.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			can, err := firewall.Probe()
			if err != nil {
				return err
			}
			var others []firewall.Neighbour
			if can.Enforce {
				if others, err = firewall.Neighbours(firewallTable(p)); err != nil {
					return firewallError(err)
				}
			}
			if asJSON {
				err = cli.JSON(c.OutOrStdout(), map[string]any{"capability": can, "chains": others})
			} else {
				err = printCapability(c.OutOrStdout(), can, others)
			}
			if err == nil && !can.Enforce {
				err = errors.New("bans cannot be enforced here: " + can.Reason)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printCapability(w io.Writer, can firewall.Capability, chains []firewall.Neighbour) error {
	if !can.Enforce {
		return nil
	}
	fmt.Fprintln(w, "bans can be enforced here")
	for _, f := range []struct {
		have bool
		what string
	}{
		{can.MapGate, "one lookup for every packet that is not banned (Linux 6.5)"},
		{can.Destroy, "changes in one step (Linux 6.3)"},
		{can.Persist, "a table that `nft flush ruleset` spares (Linux 6.9)"},
	} {
		fmt.Fprintf(w, "  %-4s %s\n", yes(f.have), f.what)
	}
	fmt.Fprintln(w)
	t := cli.NewTable(w, "HOOK", "PRIORITY", "FAMILY", "TABLE", "CHAIN", "")
	for _, n := range chains {
		note := ""
		if n.Ours {
			note = "this agent"
		}
		t.Row(n.Hook, strconv.Itoa(int(n.Priority)), n.Family, cli.Printable(n.Table), cli.Printable(n.Chain), note)
	}
	return t.Flush()
}

func newFirewallFlushCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "flush",
		Short:   "Remove every ban and rule of a stopped agent from the kernel",
		Example: "  agent firewall flush",
		Long: `Remove every ban and rule that an agent left in the kernel when it stopped. It refuses while an agent
enforces: stop that first, or use ` + "`agent firewall panic`" + `.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			table := firewallTable(p)
			if err := firewall.Remove(table); err != nil {
				if errors.Is(err, firewall.ErrBusy) {
					return cli.Hint(err, "stop the agent first, or use `agent firewall panic`")
				}
				return firewallError(err)
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "table inet %s is gone\n", table)
			return err
		},
	}
}

func newFirewallPanicCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "panic",
		Short:   "End all enforcement now, whether an agent runs or not",
		Example: "  agent firewall panic",
		Long: `End all enforcement now and until ` + "`agent firewall resume`" + ` or a reboot, whether an agent runs or not. The agent
goes on detecting and sharing. The switch is an empty table, inet banmesh-off, that ` + "`nft list tables`" + ` shows.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			table := firewallTable(p)
			if err := firewall.Panic(table); err != nil {
				return firewallError(err)
			}
			s, err := firewall.Inspect(table)
			if err != nil {
				return firewallError(err)
			}
			when := "no ban is enforced any more"
			if s.Present {
				when = "the running agent, which owns the table, takes it away within seconds"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "enforcement is off: %s\n", when)
			return err
		},
	}
}

func newFirewallResumeCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Enforce again after `agent firewall panic`",
		Example: "  agent firewall resume",
		Long:    "Enforce again after `agent firewall panic`. A running agent puts its bans back within seconds.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := firewall.Resume(firewallTable(p)); err != nil {
				return firewallError(err)
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "enforcement is on")
			return err
		},
	}
}

func firewallError(err error) error {
	if errors.Is(err, firewall.ErrDenied) {
		return cli.Hint(err, "run it as root, or with CAP_NET_ADMIN")
	}
	return err
}
