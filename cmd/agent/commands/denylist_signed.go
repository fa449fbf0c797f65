package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/settings"
	"banmesh/internal/span"
	"banmesh/internal/wallet"
	"banmesh/internal/wallet/signedlist"
)

// renewWithin is how long before their end own denials are worth a word.
const renewWithin = 7 * 24 * time.Hour

func newDenyDescribeCommand(p *paths) *cobra.Command {
	var topic string
	var said signedlist.Own
	c := &cobra.Command{
		Use:     "describe",
		Short:   "Say what your list is called, and where the denied may object",
		Example: "  agent denylist describe --topic gateway-payment --list 'Unpaid work' --contact appeals@example.org",
		Long: `Say what your list in a topic is called, by which criteria it is made, and where the denied may object. The wallet
gate tells the contact to those it refuses, and ` + "`agent denylist export --signed`" + ` writes all of it into the list. Peers that
follow the feed learn of it once ` + "`agent denylist publish`" + ` has published it.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := p.editOwn(c, topic, func(o *signedlist.Own) {
				for _, x := range []struct {
					flag  string
					to    *string
					value string
				}{{"list", &o.Name, said.Name}, {"contact", &o.Contact, said.Contact}, {"criteria", &o.Criteria, said.Criteria}} {
					if c.Flags().Changed(x.flag) {
						*x.to = x.value
					}
				}
				fmt.Fprintf(c.OutOrStdout(), "list %q in %s; to object: %s\n", o.Name, topic, cmp.Or(o.Contact, "nobody is named"))
			})
			if err != nil {
				return err
			}
			return p.republish(c, topic)
		},
	}
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	c.Flags().StringVar(&said.Name, "list", "", "its name, for people")
	c.Flags().StringVar(&said.Contact, "contact", "", "where the denied may object")
	c.Flags().StringVar(&said.Criteria, "criteria", "", "by which criteria it is made, or where they are to be read")
	return c
}

// editOwn changes the description of the own list of a topic.
func (p *paths) editOwn(c *cobra.Command, topic string, change func(*signedlist.Own)) error {
	t, err := ban.ParseTopic(topic)
	if err != nil {
		return cli.Usage("--topic: %v", err)
	}
	o, err := signedlist.ReadOwn(p.config, t)
	if err != nil {
		return err
	}
	change(&o)
	if err := signedlist.WriteOwn(p.config, t, o); err != nil {
		return &cli.Error{Err: err, Code: cli.ExitUsage}
	}
	// The gate's texts follow, where an agent runs.
	if err := p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{}, nil); err != nil && !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	return nil
}

// describeWallets keeps a note and evidence about wallets.
func (p *paths) describeWallets(c *cobra.Command, topic string, d signedlist.Details, targets []ban.Target) error {
	if d == (signedlist.Details{}) {
		return nil
	}
	if err := d.Check(); err != nil {
		return &cli.Error{Err: err, Code: cli.ExitUsage}
	}
	return p.editOwn(c, topic, func(o *signedlist.Own) {
		if o.Details == nil {
			o.Details = map[string]signedlist.Details{}
		}
		for _, t := range targets {
			o.Details[walletText(t)] = d
		}
	})
}

func newDenyRenewCommand(p *paths) *cobra.Command {
	var topic, lasts string
	var all bool
	c := &cobra.Command{
		Use:     "renew [WALLET...]",
		Short:   "Deny wallets for longer that you deny already",
		Example: "  agent denylist renew --all\n  agent denylist renew 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed --for 30d",
		Long: `Deny wallets from now on for the whole time again, with the reason that they have. Entries end after 90 days at the
latest, so that none outlives its reason unseen: look whether it still holds. What imported lists say is renewed by their
next edition.
` + cli.ExitHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return &cli.Error{Err: errors.New("want wallets, or --all"), Code: cli.ExitUsage, Hint: "see `agent denylist list`"}
			}
			request, err := (&denyFlags{topic: topic, lasts: lasts, reason: "manual"}).request()
			if err != nil {
				return err
			}
			targets, err := walletArgs(args)
			if err != nil {
				return err
			}
			list, err := denied(c.Context(), p, topic)
			if err != nil {
				return err
			}
			own, imported := map[ban.Target]control.Ban{}, p.imported()
			for _, b := range list {
				if slices.Contains(b.Origin, "here") && !imported(b) {
					own[b.Target] = b
				}
			}
			if all {
				for t := range own {
					targets = append(targets, t)
				}
				slices.SortFunc(targets, ban.Target.Compare)
			}
			if err := p.renew(c, request, targets, own); err != nil {
				return err
			}
			return p.republish(c, topic)
		},
	}
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	c.Flags().StringVar(&lasts, "for", denyFor, "how long from now, at most 90d")
	c.Flags().BoolVar(&all, "all", false, "every wallet that you deny in the topic")
	return c
}

func (p *paths) renew(c *cobra.Command, request control.BanRequest, targets []ban.Target, own map[ban.Target]control.Ban) error {
	var faults []error
	for _, t := range targets {
		old, ok := own[t]
		if !ok {
			faults = append(faults, cli.Hint(fmt.Errorf("%s is not denied in %s by you", walletText(t), request.Topic), "agent denylist add %s", walletText(t)))
			continue
		}
		request.Target, request.Class = t, &old.Class
		var b control.Ban
		if err := p.client().Post(c.Context(), "/v1/bans", request, &b); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is denied in %s until %s\n", walletText(t), b.Topic, clock(b.Until))
	}
	if len(faults) > 0 {
		return &cli.Error{Err: errors.Join(faults...), Code: cli.ExitPartly}
	}
	return nil
}

// imported gives a function that says whether an imported list has a denial.
func (p *paths) imported() func(control.Ban) bool {
	k, _ := signedlist.ReadFolder(p.config) // a damaged list renews nothing
	type listed struct {
		topic  ban.Topic
		wallet string
	}
	all := map[listed]bool{}
	for _, l := range k.Lists {
		for _, e := range l.Entries {
			all[listed{l.Topic, e.Address}] = true
		}
	}
	return func(b control.Ban) bool { return all[listed{b.Topic, walletText(b.Target)}] }
}

// signFlags are the flags of a signed export.
type signFlags struct {
	signed          bool
	kind, dir, life string
}

func (f *signFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.signed, "signed", false, "print your own entries as a list that is signed with the operator's key")
	c.Flags().StringVar(&f.kind, "kind", "", "with --signed: deny-gateways, allow-gateways or deny-orchestrators (default: by the topic)")
	c.Flags().StringVar(&f.life, "for", "90d", "with --signed: how long the list holds at most")
	addDir(c, &f.dir)
}

// sign prints the own entries of a topic as a signed list.
func (f *signFlags) sign(c *cobra.Command, p *paths, topic ban.Topic, list []control.Ban) error {
	d, err := span.Parse(f.life)
	if err != nil {
		return cli.Usage("--for: %v", err)
	}
	store, err := keys.OpenStore(cmp.Or(f.dir, p.state))
	if err != nil {
		return keyAdvice(err)
	}
	own, err := signedlist.ReadOwn(p.config, topic)
	if err != nil {
		return err
	}
	edition := uint64(time.Now().UnixMilli()) // two within a second differ
	now := time.Now().UTC().Truncate(time.Second)
	l := signedlist.List{
		Kind: signedlist.Kind(f.kind), Topic: topic, Name: cmp.Or(own.Name, string(topic)), Contact: own.Contact, Criteria: own.Criteria,
		Edition: edition, Issued: now, Until: now.Add(d), Entries: []signedlist.Entry{},
	}
	if l.Kind == "" {
		l.Kind = signedlist.DenyGateways
		if topic == wallet.OrchestratorTopic {
			l.Kind = signedlist.DenyOrchestrators
		}
	}
	imported := p.imported()
	for _, b := range list {
		if !slices.Contains(b.Origin, "here") || imported(b) {
			continue // others' words are theirs to sign
		}
		text := walletText(b.Target)
		l.Entries = append(l.Entries, signedlist.Entry{Address: text, Reason: b.Class.String(), Details: own.Details[text], Since: now, Until: b.Until.UTC()})
	}
	b, err := signedlist.Sign(store.Root(), l)
	if err != nil {
		return err
	}
	_, err = c.OutOrStdout().Write(b)
	return err
}

// importSigned takes over a signed list from an operator who is named.
func (p *paths) importSigned(c *cobra.Command, raw []byte, from string, dryRun bool) error {
	l, err := signedlist.Open(raw)
	if err != nil {
		return err
	}
	now := time.Now()
	if !l.Until.After(now) {
		return cli.Hint(fmt.Errorf("the list %q ended on %s", cli.Printable(l.Name), l.Until.Format(time.DateOnly)), "ask for a newer edition")
	}
	old, err := p.editionBefore(l, from)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%q, a list of operator %s: %s, %s; to object: %s\n", cli.Printable(l.Name), l.Operator, l.Kind, plural(len(l.Entries), "wallet"), cmp.Or(cli.Printable(l.Contact), "nobody is named"))
	if dryRun {
		fmt.Fprintln(c.OutOrStdout(), "nothing was done")
		return nil
	}
	if err := p.takeList(c.Context(), l, now); err != nil {
		return err
	}
	if err := l.Keep(p.config, raw); err != nil {
		return err
	}
	gone, err := p.dropGone(c.Context(), old, l)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "taken over in %s as %s; %d that the edition before had are withdrawn\n", l.Topic, l.Source(), gone)
	if err := p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{}, nil); err != nil {
		return err
	}
	return nil
}

// editionBefore gives the edition that is in use, nil for none, and says why the
// new one is not taken.
func (p *paths) editionBefore(l *signedlist.List, from string) (*signedlist.List, error) {
	raw, err := os.ReadFile(l.File(p.config))
	if err == nil {
		old, err := signedlist.Open(raw)
		if err == nil && old.Edition > l.Edition {
			return nil, fmt.Errorf("edition %d is older than %d, which is in use", l.Edition, old.Edition)
		}
		if err == nil {
			return old, nil
		}
	}
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return nil, err
	}
	if from == "" {
		return nil, cli.Hint(fmt.Errorf("the list is signed by operator %s, whom nobody has named", l.Operator), "compare that with its operator over another channel, then say --from %s", l.Operator)
	}
	operator, ok := set.Policy().Operator(from)
	if !ok {
		if operator, err = ban.ParseOperator(from); err != nil {
			return nil, cli.Usage("--from: no operator is called %q, and it is no identity", from)
		}
	}
	if operator != l.Operator {
		return nil, fmt.Errorf("the list is signed by operator %s, and not by %s", l.Operator, operator)
	}
	return nil, nil //nolint:nilnil // none was in use
}

// takeList denies or allows the wallets of a list, until each entry's end.
func (p *paths) takeList(ctx context.Context, l *signedlist.List, now time.Time) error {
	var bans []control.BanRequest
	for _, e := range l.Entries {
		until := e.Until
		if until.IsZero() || until.After(l.Until) {
			until = l.Until
		}
		lasts := int64(min(until.Sub(now), maxDeny) / time.Second)
		if lasts < 1 {
			continue
		}
		t, err := walletArg(e.Address)
		if err != nil {
			return err
		}
		if l.Kind == signedlist.AllowGateways {
			if err := p.client().Post(ctx, "/v1/allow", control.AllowRequest{Target: t, For: lasts, Comment: "list " + l.Name, Yes: true}, nil); err != nil {
				return err
			}
			continue
		}
		class, err := ban.ParseClass(e.Reason)
		if err != nil {
			return err
		}
		bans = append(bans, control.BanRequest{Target: t, Topic: l.Topic, For: lasts, Class: &class, By: l.Source()})
	}
	all, err := banAll(ctx, p.client(), bans)
	if err != nil {
		return err
	}
	return partly(all.Refused, len(bans))
}

// dropGone withdraws the wallets that the edition before named and this one does not.
func (p *paths) dropGone(ctx context.Context, old, l *signedlist.List) (gone int, err error) {
	if old == nil || l.Kind == signedlist.AllowGateways {
		return 0, nil
	}
	still := map[string]bool{}
	for _, e := range l.Entries {
		still[e.Address] = true
	}
	r := control.WithdrawRequest{Topic: l.Topic, By: l.Source(), Yes: true}
	for _, e := range old.Entries {
		if still[e.Address] {
			continue
		}
		t, err := walletArg(e.Address)
		if err != nil {
			return 0, err
		}
		r.Targets = append(r.Targets, t)
	}
	for some := range slices.Chunk(r.Targets, control.MaxBulk) {
		r.Targets = some
		var a control.WithdrawAnswer
		if err := p.client().Post(ctx, "/v1/withdraw", r, &a); err != nil {
			return gone, err
		}
		gone += len(a.Withdrawn)
	}
	return gone, nil
}

// readAll reads a file, or standard input for "-", up to the longest list.
func readAll(stdin io.Reader, name string) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, signedlist.MaxFile+1))
}
