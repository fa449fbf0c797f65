package commands

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/settings"
)

func newFirewallCommand(p *paths) *cobra.Command {
	return group("firewall", "Look at the kernel's bans, and end them in an emergency",
		newFirewallShowCommand(p), newFirewallCheckCommand(p), newFirewallFlushCommand(p),
		newFirewallPanicCommand(p), newFirewallResumeCommand(p), newFirewallPrepareCommand(p))
}

// enforcer gives the one that the configuration names. An emergency
// command must work with a broken configuration, too, so nothing more of it is
// read, and with none that can be read it is the default.
func (p *paths) enforcer() firewall.Enforcer {
	e, _ := p.chosen()
	return e
}

// chosen gives the enforcer with its setup.
func (p *paths) chosen() (firewall.Enforcer, firewall.Setup) {
	sw := agent.SwitchFile(p.state)
	if l, err := config.Load(p.config); err == nil {
		setup := settings.Setup(l.Firewall, sw)
		if e, err := enforcers.Find(l.Firewall.Enforcer, setup); err == nil {
			return e, setup
		}
	}
	setup := firewall.Setup{Switch: sw}
	return enforcers.All(setup)[0], setup
}

// topics gives the names of the configured topics, for counters that go by
// hashes of them.
func (p *paths) topics() (list []ban.Topic) {
	if set, err := settings.Load(p.config, p.state); err == nil {
		for _, t := range set.Topics() {
			list = append(list, t.Topic)
		}
	}
	return list
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
			e := p.enforcer()
			s, err := e.Inspect(c.Context(), p.topics())
			if errors.Is(err, firewall.ErrUnseen) {
				return cli.Hint(err, "`agent bans` lists the bans that it was told")
			}
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

func printFirewall(w io.Writer, e firewall.Enforcer, s firewall.Summary) error {
	switch {
	case s.Off:
		fmt.Fprintf(w, "enforcement was switched off by hand; `agent firewall resume` switches it on\n")
	case !s.Present:
		fmt.Fprintf(w, "nothing is enforced: there are no bans %s\n", e.Where())
	}
	if !s.Present {
		return nil
	}
	owner := ""
	if s.Owned {
		owner = ", owned by the running agent"
	}
	fmt.Fprintf(w, "%s%s\n\n", e.Where(), owner)
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

// firewallReport is the answer of `agent firewall check`.
type firewallReport struct {
	Enforcer   string               `json:"enforcer"`
	Capability firewall.Capability  `json:"capability"`
	Chains     []firewall.Neighbour `json:"chains"`
	Boot       []firewall.Restorer  `json:"boot,omitempty"`
}

func newFirewallCheckCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "check",
		Short:   "Say whether bans can be enforced here, and who else filters packets",
		Example: "  agent firewall check",
		Long: `Say whether bans can be enforced here, which of the kernel's newer features are used, in which order
packets meet this and other programs' chains, and whether a program that loads saved rules at boot
(netfilter-persistent, iptables-services, ufw) would fail for the sake of ours. It changes nothing.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			e, setup := p.chosen()
			can, err := e.Probe(c.Context())
			if err != nil {
				return err
			}
			others := []firewall.Neighbour{}
			if can.Enforce {
				if others, err = e.Neighbours(); err != nil {
					return firewallError(err)
				}
			}
			boot := enforcers.Restorers(e, setup)
			if asJSON {
				err = cli.JSON(c.OutOrStdout(), firewallReport{e.Name(), can, others, boot})
			} else if err = printCapability(c.OutOrStdout(), e, can, others); err == nil {
				printRestorers(c.OutOrStdout(), boot)
			}
			switch {
			case err != nil:
			case !can.Enforce:
				err = cli.Hint(errors.New("bans cannot be enforced here: "+can.Reason), "%s", can.Fix)
			case slices.ContainsFunc(boot, func(r firewall.Restorer) bool { return r.Fails }):
				err = &cli.Error{Err: errors.New("saved rules would not be loaded at the next boot"), Code: cli.ExitPartly}
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printCapability(w io.Writer, e firewall.Enforcer, can firewall.Capability, chains []firewall.Neighbour) error {
	if !can.Enforce {
		return nil
	}
	fmt.Fprintf(w, "bans can be enforced here with %s\n", e.Name())
	for _, f := range can.Features {
		fmt.Fprintf(w, "  %-4s %s\n", yes(f.Have), f.What)
	}
	if len(chains) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printChains(w, chains)
}

// printRestorers tells who loads saved rules at boot.
func printRestorers(w io.Writer, list []firewall.Restorer) {
	for _, r := range list {
		fmt.Fprintf(w, "\n%s\n", r.Text)
		if r.Fix != "" {
			fmt.Fprintf(w, "  fix: %s\n", r.Fix)
		}
	}
}

func newFirewallPrepareCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use:     "prepare",
		Short:   "Create the ipsets that saved iptables rules name, at boot",
		Example: "  agent firewall prepare",
		Long: `Create, empty, each ipset of an agent that the rules saved by netfilter-persistent or iptables-services name,
before they are loaded: iptables-restore loads nothing of a file that names a set which is not there. The
unit banmesh-ipsets.service runs it at boot; the agent fills the sets when it starts.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, setup := p.chosen()
			made, err := enforcers.Prepare(c.Context(), setup)
			if err != nil {
				return cli.Hint(err, "run it as root, with ipset installed")
			}
			if len(made) == 0 {
				_, err = fmt.Fprintln(c.OutOrStdout(), "nothing to create: every ipset that saved rules name is there")
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "created %s that saved rules name: %s\n", plural(len(made), "empty ipset"), strings.Join(made, " "))
			return err
		},
	}
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
			e := p.enforcer()
			err := e.Remove(c.Context())
			if errors.Is(err, firewall.ErrUnseen) {
				return cli.Hint(err, "`agent firewall panic` makes a running agent tell it to lift every ban")
			}
			if errors.Is(err, firewall.ErrBusy) {
				return cli.Hint(err, "stop the agent first, or use `agent firewall panic`")
			}
			if err != nil {
				return firewallError(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "gone: every ban "+e.Where())
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
			when, err := p.enforcer().Panic(c.Context())
			if errors.Is(err, fs.ErrPermission) {
				return cli.Hint(err, "run it as root")
			}
			if err != nil {
				return firewallError(err)
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
		Long:    "Enforce again after `agent firewall panic`. A running agent puts its bans back before this answers.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := p.enforcer().Resume(c.Context()); err != nil {
				return firewallError(err)
			}
			var a control.CountAnswer
			err := p.client().Post(c.Context(), "/v1/firewall/check", struct{}{}, &a)
			switch {
			case errors.Is(err, control.ErrNotRunning):
				_, err = fmt.Fprintln(c.OutOrStdout(), "enforcement is on; no agent runs, so no ban is in force before one does")
			case err != nil:
				return cli.Hint(fmt.Errorf("enforcement is on, and the running agent did not put its bans back: %w", err), "see `agent status`")
			default:
				_, err = fmt.Fprintf(c.OutOrStdout(), "enforcement is on, with %s of the running agent\n", plural(a.Count, "ban"))
				printKernelLags(c.OutOrStdout(), a.Kernel)
			}
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
