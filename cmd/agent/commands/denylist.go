package commands

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/wallet"
	"banmesh/internal/wallet/denyfile"
	"banmesh/internal/wallet/signedlist"
)

const (
	// denyTopic is the topic of wallets unless another is named.
	denyTopic = "broadcaster-addresses"
	// denyFor is how long a wallet is denied: the longest that a feed carries.
	// Who wants longer renews it, so that no entry outlives its reason unseen.
	denyFor = "90d"
	maxDeny = 90 * 24 * time.Hour
)

// denyReasons are the classes that a person may give as a reason.
var denyReasons = []string{"manual", "payment", "spam", "flood", "exploit", "content", "other"}

func newDenylistCommand(p *paths) *cobra.Command {
	c := group("denylist", "Deny Ethereum wallets (Livepeer gateways, also called broadcasters), by hand",
		newDenyAddCommand(p), newDenyListCommand(p), newDenyRenewCommand(p), newDenyRemoveCommand(p), newDenyDescribeCommand(p), newDenyPublishCommand(p), newDenyImportCommand(p), newDenyExportCommand(p))
	c.Long = `Deny Ethereum wallets, by hand. A wallet is never denied by a log line. The wallet gate refuses what is
denied here or by operators whose wallet topics you accept; what you deny is shared only if you publish
the topic, with its class of reason and its end and nothing else. Categories are topics: gateway-payment,
gateway-spam, gateway-content, or broadcaster-addresses for all; orchestrator-addresses is for gateways.
` + cli.ExitHelp
	c.Example = "  agent denylist add 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --reason payment --for 30d\n  agent denylist list"
	return c
}

// denyFlags are the flags that several commands share.
type denyFlags struct{ topic, lasts, reason string }

func (f *denyFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.topic, "topic", denyTopic, "the topic, one whose targets are wallets")
	c.Flags().StringVar(&f.lasts, "for", denyFor, "how long, at most 90d")
	c.Flags().StringVar(&f.reason, "reason", "manual", "class of reason: "+strings.Join(denyReasons, ", "))
}

// request gives the request that the flags ask for, without a target.
func (f *denyFlags) request() (r control.BanRequest, err error) {
	if r.Topic, err = ban.ParseTopic(f.topic); err != nil {
		return r, cli.Usage("--topic: %v", err)
	}
	if r.For, err = seconds("--for", f.lasts); err != nil {
		return r, err
	}
	if r.For > int64(denyfile.MaxFor/time.Second) {
		return r, &cli.Error{Err: fmt.Errorf("--for: %s is longer than 90 days", f.lasts), Code: cli.ExitUsage, Hint: "renew the entry when it ends, if its reason still holds"}
	}
	class, err := reasonOf(f.reason)
	if err != nil {
		return r, &cli.Error{Err: fmt.Errorf("--reason: %w", err), Code: cli.ExitUsage, Hint: "peers learn the class of a reason and no words: " + strings.Join(denyReasons, ", ")}
	}
	r.Class = &class
	return r, nil
}

func reasonOf(s string) (ban.Class, error) {
	if !slices.Contains(denyReasons, s) {
		return 0, fmt.Errorf("%.32q is no reason", s)
	}
	return ban.ParseClass(s)
}

// walletArg reads a wallet that a person typed.
func walletArg(s string) (ban.Target, error) {
	w, err := wallet.Parse(s)
	if err != nil {
		return ban.Target{}, &cli.Error{Err: err, Code: cli.ExitUsage}
	}
	return ban.TargetOfWallet(w)
}

func walletArgs(args []string) ([]ban.Target, error) {
	var targets []ban.Target
	var faults []error
	for _, a := range args {
		t, err := walletArg(a)
		if err != nil {
			faults = append(faults, err)
		}
		targets = append(targets, t)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...) // nothing is done by halves
	}
	return targets, nil
}

// walletText gives a target's EIP-55 spelling.
func walletText(t ban.Target) string {
	if w, ok := t.Wallet(); ok {
		return wallet.Format(w)
	}
	return t.String()
}

func newDenyAddCommand(p *paths) *cobra.Command {
	var f denyFlags
	var d signedlist.Details
	c := &cobra.Command{
		Use:     "add WALLET...",
		Short:   "Deny wallets for a time",
		Example: "  agent denylist add 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --reason payment --for 30d",
		Long: `Deny wallets for a time. In mixed case the spelling must be that of EIP-55, so that a mistyped digit
denies nobody. Names (ENS) are refused: what they mean can change after you signed.
` + cli.ExitHelp,
		Args: someWallets,
		RunE: func(c *cobra.Command, args []string) error {
			request, err := f.request()
			if err != nil {
				return err
			}
			targets, err := walletArgs(args)
			if err != nil {
				return err
			}
			if err := d.Check(); err != nil {
				return &cli.Error{Err: err, Code: cli.ExitUsage}
			}
			for _, request.Target = range targets {
				var b control.Ban
				if err := p.client().Post(c.Context(), "/v1/bans", request, &b); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "denied %s in %s until %s\n", walletText(b.Target), b.Topic, clock(b.Until))
			}
			if err := p.describeWallets(c, f.topic, d, targets); err != nil {
				return err
			}
			return p.republish(c, f.topic)
		},
	}
	f.register(c)
	c.Flags().StringVar(&d.Note, "note", "", "why, in a line; kept here, in signed lists and in what `denylist publish` publishes")
	c.Flags().StringVar(&d.Evidence, "evidence", "", "where the evidence is: an http(s) address, or sha256: and the file's hash")
	return c
}

func someWallets(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &cli.Error{Err: errors.New("want a wallet"), Code: cli.ExitUsage, Hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
	}
	return nil
}

// denied asks the agent for the denied wallets of a topic, sorted.
func denied(ctx context.Context, p *paths, topic string) ([]control.Ban, error) {
	if _, err := ban.ParseTopic(topic); err != nil {
		return nil, cli.Usage("--topic: %v", err)
	}
	var list []control.Ban
	if err := p.client().Get(ctx, "/v1/bans", url.Values{"topic": {topic}}, &list); err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(b control.Ban) bool { return b.Target.Kind() != ban.KindWallet })
	slices.SortFunc(list, func(a, b control.Ban) int { return a.Target.Compare(b.Target) })
	return list, nil
}

func newDenyListCommand(p *paths) *cobra.Command {
	var asJSON bool
	var topic string
	c := &cobra.Command{
		Use:     "list",
		Short:   "Show the denied wallets, whoever denied them",
		Example: "  agent denylist list\n  agent denylist list --json | jq -r '.[].target'",
		Long:    "Show the denied wallets of a topic, whoever denied them.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := denied(c.Context(), p, topic)
			if err != nil {
				return err
			}
			published, err := p.publishedLists(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				out := make([]denial, 0, len(list))
				for _, b := range list {
					out = append(out, denial{b, saidOf(published, b)})
				}
				return cli.JSON(c.OutOrStdout(), out)
			}
			if len(list) == 0 {
				fmt.Fprintf(c.OutOrStdout(), "no wallet is denied in %s\n", topic)
				return nil
			}
			return p.printDenied(c, list, published)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	return c
}

// printDenied prints a row a wallet, below it its note and evidence, and which of
// the own entries end soon.
func (p *paths) printDenied(c *cobra.Command, list []control.Ban, published []control.WalletList) error {
	kept, err := signedlist.ReadFolder(p.config)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "agent: warning: %s\n", cli.Printable(err.Error()))
	}
	said, soon := signedlist.NewIndex(kept), 0
	t := cli.NewTable(c.OutOrStdout(), "WALLET", "REASON", "BY", "UNTIL")
	for _, b := range list {
		t.Row(walletText(b.Target), b.Class.String(), strings.Join(b.Origin, " "), clock(b.Until))
		if slices.Contains(b.Origin, "here") && time.Until(b.Until) < renewWithin {
			soon++
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, b := range list {
		w, _ := b.Target.Wallet()
		if d := said.Details(b.Topic, w); d != (signedlist.Details{}) {
			fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", walletText(b.Target), cli.Printable(strings.TrimSpace(d.Note+" "+d.Evidence)))
		}
		for _, l := range saidOf(published, b) {
			fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", walletText(b.Target), cli.Printable(listedLine(l)))
		}
	}
	if soon > 0 {
		fmt.Fprintf(c.OutOrStdout(), "%s of yours end within a week: `agent denylist renew`\n", plural(soon, "entry"))
	}
	return nil
}

func newDenyRemoveCommand(p *paths) *cobra.Command {
	var topic, lasts string
	c := &cobra.Command{
		Use:     "remove WALLET...",
		Short:   "Admit wallets again, and keep peers from denying them here",
		Example: "  agent denylist remove 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		Long: `Admit wallets again: this node's own entries are withdrawn, also at the peers that took them over, and
peers' entries do not count here for 7 days or as long as --for says.
` + cli.ExitHelp,
		Args: someWallets,
		RunE: func(c *cobra.Command, args []string) error {
			request := control.UnbanRequest{}
			var err error
			if request.Topic, err = ban.ParseTopic(topic); err != nil {
				return cli.Usage("--topic: %v", err)
			}
			if request.For, err = seconds("--for", lasts); err != nil {
				return err
			}
			targets, err := walletArgs(args)
			if err != nil {
				return err
			}
			if err := p.admit(c, request, targets); err != nil {
				return err
			}
			return p.republish(c, topic)
		},
	}
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	c.Flags().StringVar(&lasts, "for", "", "how long no peer can deny it here (default: 7d)")
	return c
}

// admit unbans wallets, many in a request, and gives the outcome of each.
func (p *paths) admit(c *cobra.Command, request control.UnbanRequest, targets []ban.Target) error {
	client := p.client()
	for some := range slices.Chunk(targets, control.MaxBulk) {
		var a control.UnbanAnswer
		request.Targets = some
		if err := client.Post(c.Context(), "/v1/unban", request, &a); err != nil {
			return err
		}
		lifted := map[ban.Target]bool{}
		for _, b := range a.Lifted {
			lifted[b.Target] = true
		}
		for _, t := range some {
			if !lifted[t] {
				fmt.Fprintf(c.OutOrStdout(), "%s was not denied\n", walletText(t))
				continue
			}
			fmt.Fprintf(c.OutOrStdout(), "admitted %s; no peer can deny it here before %s\n", walletText(t), clock(a.Exempt))
		}
	}
	return nil
}

// formatOf gives the format of a file, by its name unless a flag says it.
func formatOf(flag, name string) (denyfile.Format, error) {
	if flag == "" {
		switch strings.ToLower(filepath.Ext(name)) {
		case ".csv":
			return denyfile.CSV, nil
		case ".json":
			return denyfile.JSON, nil
		}
		return denyfile.Plain, nil
	}
	f, err := denyfile.ParseFormat(flag)
	if err != nil {
		return f, cli.Usage("--format: %v", err)
	}
	return f, nil
}

func newDenyImportCommand(p *paths) *cobra.Command {
	var f denyFlags
	var format, from string
	var dryRun bool
	c := &cobra.Command{
		Use:     "import FILE",
		Short:   "Deny the wallets of a file: CSV, JSON or one a line",
		Example: "  agent denylist import wallets.csv --dry-run\n  agent denylist import - --format plain < wallets.txt",
		Long: `Deny the wallets of a file, or of standard input with "-". The file is read to its end first; if any
line of it is wrong, all faults are shown and nothing is denied.

  plain   a wallet a line; what follows # is a comment
  CSV     a heading with the column address, and reason and until (RFC 3339) if you like
  JSON    an array of wallets, or of objects with address, reason and until

A list that ` + "`agent denylist export --signed`" + ` wrote is believed for its signature: --from says once whose list it is. Its
entries go into the list's own topic, until their own end, and a later edition withdraws those that it no longer has. A
list of kind allow-gateways keeps its wallets from being denied here, by anybody.
` + cli.ExitHelp,
		Args: exactly(1, "a file, or - for standard input"),
		RunE: func(c *cobra.Command, args []string) error {
			request, err := f.request()
			if err != nil {
				return err
			}
			raw, err := readAll(c.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if signedlist.Is(raw) {
				return p.importSigned(c, raw, from, dryRun)
			}
			kind, err := formatOf(format, args[0])
			if err != nil {
				return err
			}
			entries, err := readDenyFile(bytes.NewReader(raw), args[0], kind)
			if err != nil {
				return err
			}
			if dryRun {
				fmt.Fprintf(c.OutOrStdout(), "%s could be denied in %s; nothing was done\n", plural(len(entries), "wallet"), request.Topic)
				return nil
			}
			if err := p.deny(c, request, entries); err != nil {
				return err
			}
			return p.republish(c, f.topic)
		},
	}
	f.register(c)
	c.Flags().StringVar(&format, "format", "", "csv, json or plain (default: by the file's name)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "read and check the file only")
	c.Flags().StringVar(&from, "from", "", "whose signed list it is: an identity, or an operator's name here")
	return c
}

// readDenyFile reads a file whole and shows every fault of it.
func readDenyFile(in io.Reader, name string, kind denyfile.Format) ([]denyfile.Entry, error) {
	entries, err := denyfile.Read(in, kind, time.Now())
	if err != nil {
		faults := []error{err}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			faults = joined.Unwrap()
		}
		for i, fault := range faults {
			faults[i] = fmt.Errorf("%s:%w", name, fault)
		}
		return nil, errors.Join(append(faults, cli.Hint(errors.New("nothing was denied"), "mend the file and import it again"))...)
	}
	var faults []error
	for _, e := range entries {
		if e.Reason == "" {
			continue
		}
		if _, err := reasonOf(e.Reason); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", name, wallet.Format(e.Wallet), err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(append(faults, cli.Hint(errors.New("nothing was denied"), "reasons are: %s", strings.Join(denyReasons, ", ")))...)
	}
	return entries, nil
}

// deny sends the entries, many in a request, and names those that are refused.
func (p *paths) deny(c *cobra.Command, request control.BanRequest, entries []denyfile.Entry) error {
	bans := make([]control.BanRequest, 0, len(entries))
	for _, e := range entries {
		b := request
		if e.Reason != "" {
			class, err := reasonOf(e.Reason)
			if err != nil {
				return err
			}
			b.Class = &class
		}
		if !e.Until.IsZero() {
			b.For = max(1, int64((time.Until(e.Until)+time.Second-1)/time.Second))
		}
		var err error
		if b.Target, err = ban.TargetOfWallet(e.Wallet); err != nil {
			return err
		}
		bans = append(bans, b)
	}
	all, err := banAll(c.Context(), p.client(), bans)
	done, refused := all.Banned, all.Refused
	if err != nil {
		if done == 0 {
			return err
		}
		return &cli.Error{Err: fmt.Errorf("after %d of %d: %w", done, len(entries), err), Code: cli.ExitPartly, Hint: "the import can be repeated: what is denied already stays as it is"}
	}
	if done > 0 || len(refused) == 0 {
		fmt.Fprintf(c.OutOrStdout(), "denied %s in %s\n", plural(done, "wallet"), request.Topic)
	}
	if len(refused) == 0 {
		return nil
	}
	var faults []error
	for _, x := range refused {
		faults = append(faults, cli.Hint(fmt.Errorf("%s: %s", walletText(x.Target), x.Error), "%s", x.Hint))
	}
	code := cli.ExitPartly
	if done == 0 {
		code = cli.ExitError
	}
	return &cli.Error{Err: errors.Join(faults...), Code: code}
}

func newDenyExportCommand(p *paths) *cobra.Command {
	var topic, format string
	var f signFlags
	c := &cobra.Command{
		Use:     "export",
		Short:   "Print the denied wallets: CSV, JSON, one a line, or a signed list",
		Example: "  agent denylist export --format csv > wallets.csv\n  agent denylist export --signed --topic gateway-payment > unpaid.json",
		Long: `Print the denied wallets of a topic, whoever denied them, so that ` + "`agent denylist import`" + ` reads them. With --signed, print
your own entries with notes, evidence and the contact for objections, signed with the operator's key. The format blocklist
is for go-livepeer's -orchBlocklist, which takes effect at its start.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := denied(c.Context(), p, topic)
			switch {
			case err != nil:
				return err
			case f.signed:
				return f.sign(c, p, ban.Topic(topic), list)
			case format == "blocklist":
				var all []string
				for _, b := range list {
					all = append(all, walletText(b.Target))
				}
				fmt.Fprintln(c.OutOrStdout(), strings.Join(all, ","))
				return nil
			}
			kind, err := formatOf(format, "")
			if err != nil {
				return err
			}
			var entries []denyfile.Entry
			for _, b := range list {
				w, _ := b.Target.Wallet()
				reason := b.Class.String()
				if !slices.Contains(denyReasons, reason) {
					reason = ban.ClassOther.String()
				}
				entries = append(entries, denyfile.Entry{Wallet: w, Reason: reason, Until: b.Until})
			}
			return denyfile.Write(c.OutOrStdout(), kind, entries)
		},
	}
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	c.Flags().StringVar(&format, "format", "plain", "csv, json, plain or blocklist")
	f.register(c)
	return c
}
