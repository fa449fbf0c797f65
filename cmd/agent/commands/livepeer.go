package commands

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/wallet/suspects"
)

func newLivepeerCommand(p *paths) *cobra.Command {
	c := group("livepeer", "For Livepeer orchestrators: the wallet gate, and wallets that the log names", newGateCommand(p), newSuspectsCommand())
	c.Long = "For Livepeer orchestrators: the wallet gate, and wallets that the log names. Wallets are denied with\n`agent denylist`; see also docs/livepeer.md.\n" + cli.ExitHelp
	c.Example = "  agent livepeer gate\n  journalctl -u livepeer -o cat --since yesterday | agent livepeer suspects"
	return c
}

func newGateCommand(p *paths) *cobra.Command {
	var asJSON bool
	var most int
	c := &cobra.Command{
		Use:     "gate",
		Short:   "Show the gate's URL for -authWebhookUrl, and which wallets asked",
		Example: "  agent livepeer gate\n  agent livepeer gate --json | jq -r .url",
		Long: `Show the URL that the orchestrator gets as -authWebhookUrl, by which list the gate answers, what it
answered since it started, and the wallets that asked last, those refused most first. The gate is a
process of its own (banmesh-gate), and all but the URL is its own account. Keep the URL to yourself:
whoever has it can ask which wallets are denied.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var a control.GateStatus
			if err := p.client().Get(c.Context(), "/v1/gate", url.Values{}, &a); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), a)
			}
			return printGate(c.OutOrStdout(), a, most, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().IntVarP(&most, "lines", "n", 20, "wallets to show; 0 means all")
	return c
}

func printGate(w io.Writer, a control.GateStatus, most int, now time.Time) error {
	fmt.Fprintf(w, "-authWebhookUrl %s\n\n", a.URL)
	if !a.Running {
		fmt.Fprintf(w, "the gate does not answer: %s\n", cli.Printable(a.Error))
		fmt.Fprintf(w, "systemctl enable --now banmesh-gate.socket, or run `banmesh-gate %s`\n", a.File)
		return nil
	}
	fmt.Fprintln(w, gateLine(a, now))
	if a.Error != "" {
		fmt.Fprintf(w, "the agent cannot write its list: %s\n", cli.Printable(a.Error))
	}
	if a.DryRun {
		fmt.Fprintln(w, "dry run: nobody is refused, refusals are only counted")
	}
	if !a.Inherited {
		fmt.Fprintln(w, "the socket is the gate's own: calls during its restart are refused (systemctl enable --now banmesh-gate.socket)")
	}
	fmt.Fprintf(w, "allowed %d, refused %d, without a wallet %d, stray %d\n", a.Allowed, a.Refused, a.Unread, a.Stray)
	if a.UpstreamRefused+a.UpstreamFailed > 0 {
		fmt.Fprintf(w, "the chained webhook refused %d and failed %d times\n", a.UpstreamRefused, a.UpstreamFailed)
	}
	if len(a.Wallets) == 0 {
		fmt.Fprintln(w, "no wallet asked yet")
		return nil
	}
	fmt.Fprintln(w)
	t := cli.NewTable(w, "WALLET", "REFUSED", "ALLOWED", "LAST")
	for i, x := range a.Wallets {
		if most > 0 && i == most {
			break
		}
		t.Row(x.Wallet, strconv.FormatUint(x.Refused, 10), strconv.FormatUint(x.Allowed, 10), clock(x.Last))
	}
	return t.Flush()
}

// gateLine says in a line by which list the gate answers.
func gateLine(a control.GateStatus, now time.Time) string {
	switch {
	case a.Fault != "":
		return "the gate allows everybody: " + cli.Printable(a.Fault)
	case !a.Current:
		return fmt.Sprintf("the gate answers by an older list, written %s ago: %s denied", cli.Short(now.Sub(a.Written)), plural(a.Listed, "wallet"))
	}
	return fmt.Sprintf("the gate answers by the newest list, written %s ago: %s denied", cli.Short(now.Sub(a.Written)), plural(a.Listed, "wallet"))
}

func newSuspectsCommand() *cobra.Command {
	var asJSON bool
	var most int
	c := &cobra.Command{
		Use:   "suspects [FILE]",
		Short: "Count the wallets that an orchestrator's log names beside errors; nothing is banned",
		Example: `  journalctl -u livepeer -o cat --since yesterday | agent livepeer suspects
  agent livepeer suspects /var/log/livepeer.log`,
		Long: `Count the wallets that an orchestrator's log names beside errors, from a file or standard input.

No wallet is banned by this, and none should be by the counts alone. PAYMENT lines follow a valid
signature, but others who saw it can send it again, and most come of honest gateways' faults. UNPROVEN
lines name a wallet before anything is verified: anybody can write any wallet there. Who is sure denies
a wallet by hand with ` + "`agent denylist add`" + `.
` + cli.ExitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := c.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if f, ok := in.(*os.File); ok && len(args) == 0 {
				if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
					return &cli.Error{Err: fmt.Errorf("want a log, as a file or on standard input"), Code: cli.ExitUsage, Hint: "journalctl -u livepeer -o cat --since yesterday | agent livepeer suspects"}
				}
			}
			r, err := suspects.Read(in)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), r)
			}
			return printSuspects(c.OutOrStdout(), r, most)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().IntVarP(&most, "lines", "n", 20, "wallets to show; 0 means all")
	return c
}

func printSuspects(w io.Writer, r suspects.Report, most int) error {
	if len(r.Suspects) == 0 {
		fmt.Fprintf(w, "no wallet stands beside an error in %s\n", plural(r.Lines, "line"))
		return nil
	}
	t := cli.NewTable(w, "WALLET", "PAYMENT", "UNPROVEN")
	for i, s := range r.Suspects {
		if most > 0 && i == most {
			break
		}
		t.Row(s.Wallet, strconv.Itoa(s.Payment), strconv.Itoa(s.Unproven))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.More {
		fmt.Fprintln(w, "the log names more wallets than are told apart")
	}
	fmt.Fprintf(w, "\nThese are %s, not proofs: anybody can make an orchestrator log another's wallet. Nothing was banned.\n", plural(len(r.Suspects), "wallet"))
	return nil
}
