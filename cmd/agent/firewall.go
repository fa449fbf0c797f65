package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/firewall"
	"banmesh/internal/settings"
)

func newFirewallCommand(p *paths) *cobra.Command {
	return group("firewall", "Look at the kernel's bans, and end them in an emergency",
		newFirewallShowCommand(p), newFirewallCheckCommand(p), newFirewallFlushCommand(p),
		newFirewallPanicCommand(p), newFirewallResumeCommand(p))
}

// enforcing is how the configuration has bans enforced. An emergency command
// must work with a broken configuration, too, so nothing more of it is read.
type enforcing struct {
	config.Firewall
	sw string // the switch of the enforcers without one in the kernel
}

func (p *paths) enforcing() enforcing {
	e := enforcing{sw: agent.SwitchFile(p.state)}
	if l, err := config.Load(p.config); err == nil {
		e.Firewall = l.Firewall
	}
	e.Table = cmp.Or(e.Table, firewall.DefaultTable)
	e.Enforcer = cmp.Or(e.Enforcer, "nftables")
	return e
}

// switched says whether the switch file is there.
func (e enforcing) switched() bool {
	_, err := os.Lstat(e.sw)
	return err == nil
}

// inspect gives what is enforced, without an agent.
func (p *paths) inspect(ctx context.Context, e enforcing) (firewall.Summary, error) {
	switch e.Enforcer {
	case "nftables":
		return firewall.Inspect(e.Table)
	case "hook":
		return firewall.Summary{}, cli.Hint(fmt.Errorf("what the hook %s did is its own to show", e.Hook[0]), "`agent bans` lists what it was told")
	}
	var topics []ban.Topic
	if set, err := settings.Load(p.config); err == nil {
		for _, t := range set.Topics() {
			topics = append(topics, t.Topic)
		}
	}
	s, err := firewall.InspectIPSet(ctx, e.Table, e.IPTablesLegacy, topics)
	s.Off = e.switched()
	return s, err
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
			e := p.enforcing()
			s, err := p.inspect(c.Context(), e)
			if err != nil {
				return firewallError(err)
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), s)
			}
			return printFirewall(c.OutOrStdout(), e, s)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printFirewall(w io.Writer, e enforcing, s firewall.Summary) error {
	what := "table inet " + s.Table
	if e.Enforcer == "ipset" {
		what = "set " + s.Table + "-*"
	}
	switch {
	case s.Off:
		fmt.Fprintf(w, "enforcement was switched off by hand; `agent firewall resume` switches it on\n")
	case !s.Present:
		fmt.Fprintf(w, "the kernel has no %s: nothing is enforced\n", what)
	}
	if !s.Present {
		return nil
	}
	owner := ""
	if s.Owned {
		owner = ", owned by the running agent"
	}
	fmt.Fprintf(w, "%s%s\n\n", what, owner)
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
		by := s.Operators[ban.Topic(topic)]
		for _, name := range slices.Sorted(maps.Keys(by)) {
			t.Row("  by "+cli.Printable(name), strconv.FormatUint(by[name].Packets, 10), strconv.FormatUint(by[name].Bytes, 10))
		}
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
			e := p.enforcing()
			can, err := e.capability(c.Context())
			if err != nil {
				return err
			}
			others := []firewall.Neighbour{}
			if can.Enforce && e.Enforcer != "hook" {
				// The neighbours are of interest to ipset, too, where there are any.
				if others, err = firewall.Neighbours(e.Table); err != nil && e.Enforcer == "nftables" {
					return firewallError(err)
				}
			}
			if asJSON {
				err = cli.JSON(c.OutOrStdout(), map[string]any{"enforcer": e.Enforcer, "capability": can, "chains": others})
			} else {
				err = printCapability(c.OutOrStdout(), e, can, others)
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

// capability says whether the enforcer can work here.
func (e enforcing) capability(ctx context.Context) (firewall.Capability, error) {
	switch e.Enforcer {
	case "ipset":
		return firewall.ProbeIPSet(ctx, e.IPTablesLegacy), nil
	case "hook":
		_, err := firewall.NewHook(firewall.Options{}, e.Hook)
		return firewall.Capability{Enforce: err == nil}, err
	}
	return firewall.Probe()
}

func printCapability(w io.Writer, e enforcing, can firewall.Capability, chains []firewall.Neighbour) error {
	if !can.Enforce {
		return nil
	}
	if e.Enforcer != "nftables" {
		fmt.Fprintf(w, "bans can be enforced here with %s\n", e.Enforcer)
		if len(chains) == 0 {
			return nil
		}
		fmt.Fprintln(w)
		return printChains(w, chains)
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
	return printChains(w, chains)
}

func printChains(w io.Writer, chains []firewall.Neighbour) error {
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
			e := p.enforcing()
			err, gone := error(nil), "table inet "+e.Table+" is gone"
			switch e.Enforcer {
			case "nftables":
				err = firewall.Remove(e.Table)
			case "ipset":
				err, gone = firewall.RemoveIPSet(c.Context(), e.Table, e.IPTablesLegacy), "every ipset "+e.Table+"-* is gone"
			default:
				return cli.Hint(fmt.Errorf("what the hook %s did is its own to undo", e.Hook[0]), "`agent firewall panic` makes a running agent tell it to lift every ban")
			}
			if errors.Is(err, firewall.ErrBusy) {
				return cli.Hint(err, "stop the agent first, or use `agent firewall panic`")
			}
			if err != nil {
				return firewallError(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), gone)
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
With another enforcer than nftables it is a file in the state directory, which a reboot does not take away.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e := p.enforcing()
			if e.Enforcer != "nftables" {
				return e.panic(c)
			}
			if err := firewall.Panic(e.Table); err != nil {
				return firewallError(err)
			}
			s, err := firewall.Inspect(e.Table)
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

// panic ends the enforcement of enforcers that have no switch in the kernel.
func (e enforcing) panic(c *cobra.Command) error {
	f, err := os.OpenFile(e.sw, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return cli.Hint(err, "run it as root")
	}
	if err := f.Close(); err != nil {
		return err
	}
	when := "a running agent tells the hook within seconds to lift every ban; without one, each ends on its time"
	if e.Enforcer == "ipset" {
		if err := firewall.PanicIPSet(c.Context(), e.Table, e.IPTablesLegacy); err != nil {
			return err
		}
		when = "no ban is enforced any more"
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "enforcement is off: %s\n", when)
	return err
}

func newFirewallResumeCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Enforce again after `agent firewall panic`",
		Example: "  agent firewall resume",
		Long:    "Enforce again after `agent firewall panic`. A running agent puts its bans back within seconds.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e := p.enforcing()
			if e.Enforcer == "nftables" {
				if err := firewall.Resume(e.Table); err != nil {
					return firewallError(err)
				}
			} else if err := os.Remove(e.sw); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
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
