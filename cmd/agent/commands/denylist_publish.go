package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/wallet/signedlist"
	"banmesh/internal/wire"
)

func newDenyPublishCommand(p *paths) *cobra.Command {
	var topic string
	var none bool
	var flags publishing
	c := &cobra.Command{
		Use:     "publish",
		Short:   "Publish notes, evidence and the contact of your list, beside the feed",
		Example: "  agent denylist publish --topic gateway-payment\n  agent denylist publish --topic gateway-payment --none",
		Long: `Sign what you say about the wallets that you deny in a topic, and publish it to the network: the list's name, contact and
criteria as ` + "`agent denylist describe`" + ` keeps them, and each wallet's note and evidence. Everybody can read it. Peers who accept
the topic's claims from you see it in ` + "`denylist list`" + ` and ` + "`explain`" + `, and their gates tell the denied your contact. It denies
nobody: the feed does. Once published it follows what add, renew, remove and describe change; --none withdraws it.
A document has room for 1,024 wallets and 64 KiB: those with a note or evidence go first.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := ban.ParseTopic(topic)
			if err != nil {
				return cli.Usage("--topic: %v", err)
			}
			var l wire.List
			if !none {
				var left int
				if l, left, err = p.ownList(c.Context(), t); err != nil {
					return err
				}
				fmt.Fprintf(c.OutOrStdout(), "list %q in %s: %s; to object: %s\n", l.Name, topic, plural(len(l.Entries), "wallet"), cmp.Or(l.Contact, "nobody is named"))
				if left > 0 {
					fmt.Fprintf(c.OutOrStdout(), "%s more did not fit; `agent denylist export --signed` has them all\n", plural(left, "wallet"))
				}
			}
			return flags.sign(c, p, func(o *keys.Store, network string, now time.Time) ([]byte, error) {
				return o.PublishList(network, t, now, l)
			})
		},
	}
	c.Flags().StringVar(&topic, "topic", denyTopic, "the topic")
	c.Flags().BoolVar(&none, "none", false, "withdraw what was published")
	flags.add(c)
	return c
}

// ownList gives this operator's list of the wallets that it denies here in
// a topic, and how many did not fit.
func (p *paths) ownList(ctx context.Context, topic ban.Topic) (l wire.List, left int, err error) {
	own, err := signedlist.ReadOwn(p.config, topic)
	if err != nil {
		return l, 0, err
	}
	bans, err := denied(ctx, p, string(topic))
	if err != nil {
		return l, 0, err
	}
	l = wire.List{Name: cmp.Or(own.Name, string(topic)), Contact: own.Contact, Criteria: own.Criteria}
	if len(l.Name) > wire.MaxCardName {
		return l, 0, cli.Hint(fmt.Errorf("the list's name has more than %d bytes", wire.MaxCardName), "agent denylist describe --topic %s --list NAME", topic)
	}
	imported := p.imported()
	for _, b := range bans {
		w, ok := b.Target.Wallet()
		if !ok || !slices.Contains(b.Origin, "here") || imported(b) {
			continue // others' words are theirs to publish
		}
		d := own.Details[walletText(b.Target)]
		l.Entries = append(l.Entries, wire.Listed{Wallet: w, Note: d.Note, Evidence: d.Evidence})
	}
	left = fitList(&l)
	return l, left, nil
}

// listRoom is the part of a document for a list's entries: the rest is for its
// texts, header and signature.
const listRoom = wire.MaxSent - 2<<10

// fitList cuts a list to a document's room, and gives how many entries it cut.
func fitList(l *wire.List) (left int) {
	slices.SortStableFunc(l.Entries, func(a, b wire.Listed) int {
		return cmp.Compare(b2i(a.Note+a.Evidence == ""), b2i(b.Note+b.Evidence == ""))
	})
	room := listRoom
	for i, e := range l.Entries {
		room -= len(e.Wallet) + len(e.Note) + len(e.Evidence) + 4
		if i == wire.MaxListed || room < 0 {
			left = len(l.Entries) - i
			l.Entries = l.Entries[:i]
			break
		}
	}
	return left
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// republish signs the published list of a topic again after a change, where one
// is published.
func (p *paths) republish(c *cobra.Command, topic string) error {
	conf, err := config.Load(p.config)
	if err != nil {
		return err
	}
	network, t := networkOf(conf), ban.Topic(topic)
	if before := keys.PublishedList(p.state, network, t); before == nil || before.Withdrawn() {
		return nil
	}
	o, err := keys.OpenStore(p.state)
	if err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "agent: warning: the published list of %s says what it said before: `agent denylist publish --topic %s` where the operator's key is\n", topic, topic)
		return nil //nolint:nilerr // said to the person; the denial itself is done
	}
	l, _, err := p.ownList(c.Context(), t)
	if err != nil {
		return err
	}
	if _, err := o.PublishList(network, t, time.Now(), l); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "the published list of %s is signed anew\n", topic)
	if err := p.client().Post(c.Context(), "/v1/reload", control.ReloadRequest{}, nil); err != nil && !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	return nil
}

// A denial is a denied wallet and its entries in the lists of those who deny it.
type denial struct {
	control.Ban
	Said []control.Listed `json:"said,omitempty"`
}

// publishedLists gives the lists of wallets that operators publish.
func (p *paths) publishedLists(ctx context.Context) ([]control.WalletList, error) {
	var d control.Documents
	if err := p.client().Get(ctx, "/v1/documents", nil, &d); err != nil {
		return nil, err
	}
	return d.Lists, nil
}

// saidOf gives a wallet's entries in the published lists of those who deny it.
func saidOf(lists []control.WalletList, b control.Ban) (said []control.Listed) {
	for i := range lists {
		l := &lists[i]
		if l.Topic != b.Topic || !slices.Contains(b.Origin, l.By) {
			continue
		}
		if about, ok := l.About(b.Target); ok {
			said = append(said, about)
		}
	}
	return said
}

// listedLine is a list's entry for a wallet, in a line.
func listedLine(l control.Listed) string {
	text := l.By + "'s list"
	if l.List != "" {
		text += fmt.Sprintf(" %q", l.List)
	}
	text += ": " + cmp.Or(strings.TrimSpace(l.Note+" "+l.Evidence), "no note")
	if l.Contact != "" {
		text += "; to object: " + l.Contact
	}
	return text
}

// addOwnNotes puts the notes about an own denial into an explanation.
func (p *paths) addOwnNotes(e *control.Explanation) {
	w, ok := e.Target.Wallet()
	if !ok {
		return
	}
	kept, _ := signedlist.ReadFolder(p.config) // a damaged list says nothing; `denylist list` warns
	said := signedlist.NewIndex(kept)
	for i := range e.Standings {
		s := &e.Standings[i]
		d := said.Details(s.Topic, w)
		if d == (signedlist.Details{}) {
			continue
		}
		for j := range s.Claims {
			if c := &s.Claims[j]; c.Operator == "" {
				c.Listed = &control.Listed{By: "this node", Note: d.Note, Evidence: d.Evidence, Contact: said.Contact(s.Topic, w)}
			}
		}
	}
}
