package commands

import (
	"encoding/base64"
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
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

// documentPrefix begins a signed document as a line of text, for a node whose
// operator's root key is on another machine.
const documentPrefix = "banmesh-document:"

// publishing are the flags of commands that sign a document.
type publishing struct {
	dir, network string
	text         bool
}

func (f *publishing) add(c *cobra.Command) {
	addDir(c, &f.dir)
	c.Flags().StringVar(&f.network, "network", "", "network (default: that of the configuration)")
	c.Flags().BoolVar(&f.text, "text", false, "print the document for `agent key install-document` on a node")
}

// sign signs a document where the root key is, and hands it to this machine's
// node, or prints it for another's.
func (f *publishing) sign(c *cobra.Command, p *paths, sign func(o *keys.Store, network string, now time.Time) ([]byte, error)) error {
	dir := f.dir
	if dir == "" {
		dir = p.state
	}
	o, err := keys.OpenStore(dir)
	if err != nil {
		return keyAdvice(err)
	}
	if f.network == "" {
		conf, err := config.Load(p.config)
		if err != nil {
			return err
		}
		f.network = networkOf(conf)
	}
	if err := wire.CheckNetwork(f.network); err != nil {
		return cli.Usage("--network: %v", err)
	}
	raw, err := sign(o, f.network, time.Now())
	if err != nil {
		return err
	}
	if f.text {
		_, err := fmt.Fprintln(c.OutOrStdout(), documentPrefix+base64.RawURLEncoding.EncodeToString(raw))
		return err
	}
	m, err := keys.KeepDocument(p.state, raw)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "number %d for the network %s is signed\n", m.Header.Number, m.Header.Network)
	return reload(c, p, p.state)
}

func newPeersPublishTrustCommand(p *paths) *cobra.Command {
	var flags publishing
	var also []string
	var none bool
	c := &cobra.Command{
		Use: "publish-trust NAME...", Short: "Publish a list of operators that this operator trusts, for those who follow it",
		Example: "  agent peers publish-trust alice bob --follows alice\n  agent peers publish-trust --none",
		Long: `Sign a list of operators, by the names that this node has for them, and publish it to the network. Others who write
` + "`follow`" + ` and your name into a group of theirs then count the operators on it; whatever the list brings is one vote
together with your own, so it can only ever speak as loudly as you do. A new list replaces the one before. --follows marks
operators whose own lists you follow in turn. Everybody can read the list.
` + cli.ExitHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if none == (len(args) > 0) {
				return cli.Usage("name the operators to list, or --none for an empty list")
			}
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			var list []wire.Trusted
			for _, name := range args {
				o, ok := set.Policy().Operator(name)
				if !ok {
					return &cli.Error{Err: fmt.Errorf("no operator %q is known here", name), Code: cli.ExitUsage, Hint: "see `agent peers list`"}
				}
				if !slices.ContainsFunc(list, func(x wire.Trusted) bool { return x.Operator == o }) {
					list = append(list, wire.Trusted{Operator: o, Weight: 100, Name: name, Follows: slices.Contains(also, name)})
				}
			}
			for _, name := range also {
				if !slices.Contains(args, name) {
					return cli.Usage("--follows %s: it is not on the list", name)
				}
			}
			return flags.sign(c, p, func(o *keys.Store, network string, now time.Time) ([]byte, error) {
				return o.PublishTrust(network, now, list)
			})
		},
	}
	flags.add(c)
	c.Flags().StringSliceVar(&also, "follows", nil, "operators on the list whose own lists are followed in turn")
	c.Flags().BoolVar(&none, "none", false, "publish an empty list")
	return c
}

func newPeersListsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "lists", Short: "Show the trust lists that this node's rules follow",
		Example: "  agent peers lists",
		Long: `Show the lists that operators publish of whom they trust, as far as the rules follow them ("follow NAME" in a
group). All that one list brings counts as one vote together with its author's own.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			var d control.Documents
			if err := p.client().Get(c.Context(), "/v1/documents", nil, &d); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), d.Trust)
			}
			if len(d.Trust) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no list is followed, or none has been heard yet: `agent peers follow NAME`")
				return nil
			}
			t := cli.NewTable(c.OutOrStdout(), "LIST OF", "SIGNED", "TRUSTS", "OPERATOR", "FOLLOWS ON")
			for _, l := range d.Trust {
				name, ok := set.Policy().Name(l.Operator)
				if !ok {
					name = l.Operator.String()
				}
				if len(l.Trusted) == 0 {
					t.Row(name, l.Issued.Format(time.DateOnly), "nobody", "", "")
				}
				for _, x := range l.Trusted {
					t.Row(name, l.Issued.Format(time.DateOnly), cli.Printable(x.Name), x.Operator.String(), yes(x.Follows))
				}
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// followedGroup is the group that `agent peers follow` keeps.
const followedGroup = "followed"

func newPeersFollowCommand(p *paths) *cobra.Command {
	var most, depth int
	var yes bool
	c := &cobra.Command{
		Use: "follow NAME", Short: "Follow the trust list that an operator publishes",
		Example: "  agent peers follow alice --most 10",
		Long: `Put "follow NAME" into the group followed. A topic's rule that names the group then counts everybody on the list
that NAME publishes, all of them and NAME together as one vote:

  [topics.sshd]
  watch = "any of followed"
  ban = "2 of core, followed"

Nothing else changes, and nothing applies until a rule names the group.
` + cli.ExitHelp,
		Args: exactly(1, "an operator's name"),
		RunE: func(c *cobra.Command, args []string) error {
			entry := "follow " + args[0]
			if depth != 1 {
				entry += fmt.Sprintf(" depth %d", depth)
			}
			entry += fmt.Sprintf(" most %d", most)
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			if _, ok := set.Policy().Operator(args[0]); !ok {
				return cli.Hint(fmt.Errorf("no operator is called %q", args[0]), "`agent peers add %s ID` first", args[0])
			}
			written, err := editFollowed(p, args[0], entry)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s = [%q, ...]: name the group in a topic's rule, such as watch = \"any of %s\"\n", followedGroup, entry, followedGroup)
			return written.takeOver(c, yes)
		},
	}
	c.Flags().IntVar(&most, "most", 25, "how many operators the list may bring")
	c.Flags().IntVar(&depth, "depth", 1, "2 also reads the lists of those whom NAME follows")
	yesFlag(c, &yes)
	return c
}

func newPeersUnfollowCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "unfollow NAME", Short: "Stop following an operator's trust list",
		Example: "  agent peers unfollow alice",
		Args:    exactly(1, "an operator's name"),
		RunE: func(c *cobra.Command, args []string) error {
			written, err := editFollowed(p, args[0], "")
			if err != nil {
				return err
			}
			if err := written.takeOver(c, yes); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "the list of %s is no longer followed\n", args[0])
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}

// editFollowed replaces an operator's entry of the group, or removes it. A
// configuration that does not hold afterwards is put back.
func editFollowed(p *paths, name, entry string) (*change, error) {
	had := false
	written, err := p.edit(followedGroup, func(tree map[string]any) error {
		groups := config.Table(tree, "groups")
		list, _ := groups[followedGroup].([]any)
		list = slices.DeleteFunc(slices.Clone(list), func(x any) bool {
			s, _ := x.(string)
			is := s == "follow "+name || strings.HasPrefix(s, "follow "+name+" ")
			had = had || is
			return is
		})
		if entry != "" {
			list = append(list, entry)
		}
		if groups[followedGroup] = list; len(list) == 0 {
			delete(groups, followedGroup)
		}
		config.Prune(tree)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if entry == "" && !had {
		return nil, cli.Hint(fmt.Errorf("the list of %q was not followed by this command", name), "what you wrote into agent.toml, you remove there")
	}
	if _, err := settings.Load(p.config, p.state); err != nil {
		return nil, errors.Join(fmt.Errorf("nothing was changed: %w", err), written.undo())
	}
	return written, nil
}

func newKeyInstallDocumentCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "install-document FILE", Short: "Publish a trust list or topic definition that was signed on another machine",
		Example: "  desk$   agent peers publish-trust alice --dir ~/operator-keys --text > trust.txt\n  node$   agent key install-document trust.txt",
		Args:    exactly(1, "a file, or -"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readSmall(args[0])
			if err != nil {
				return err
			}
			text, ok := strings.CutPrefix(strings.TrimSpace(string(b)), documentPrefix)
			if !ok {
				return fmt.Errorf("%s: a document begins with %s", args[0], documentPrefix)
			}
			raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			m, err := wire.OpenDocument(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			id, err := keys.Load(p.state)
			if err != nil {
				return keyAdvice(err)
			}
			if m.Header.Operator != id.Operator() {
				return fmt.Errorf("the document is of operator %s, this node belongs to %s", m.Header.Operator, id.Operator())
			}
			if _, err := keys.KeepDocument(p.state, raw); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "number %d for the network %s is installed\n", m.Header.Number, m.Header.Network)
			return reload(c, p, p.state)
		},
	}
}

// peerCard asks the running agent for an operator's card.
func peerCard(c *cobra.Command, p *paths, name string) (*wire.Card, error) {
	var answer control.PeerCard
	if err := p.client().Get(c.Context(), "/v1/card", map[string][]string{"peer": {name}}, &answer); err != nil {
		return nil, err
	}
	card, _, err := wire.ParseCardText([]byte(answer.Text))
	return card, err
}

func newPeersCardCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "card NAME", Short: "Show the card of an operator: contact, criteria, machines, revocations and successor",
		Example: "  agent peers card alice",
		Args:    exactly(1, "an operator's name or identity"),
		RunE: func(c *cobra.Command, args []string) error {
			card, err := peerCard(c, p, args[0])
			if err != nil {
				return err
			}
			return printCard(c.OutOrStdout(), card)
		},
	}
}

func newPeersSucceedCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "succeed NAME", Short: "Believe, in an operator's place, the successor that its card names",
		Example: "  agent peers card alice\n  agent peers succeed alice",
		Long: `An operator whose root key is lost or stolen may have named a successor in its card beforehand. This puts the
successor's identity in the place of NAME's, in all rules. Ask the operator over another channel first: a stolen root key
can name a successor too.
` + cli.ExitHelp,
		Args: exactly(1, "an operator's name"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			card, err := peerCard(c, p, name)
			if err != nil {
				return err
			}
			if card.Successor == (ban.Operator{}) {
				return fmt.Errorf("the card of %s names no successor", name)
			}
			written, err := p.edit(peersDropIn, func(tree map[string]any) error {
				operators := config.Table(tree, "operators")
				o, ok := operators[name].(map[string]any)
				if !ok {
					return cli.Hint(fmt.Errorf("%s was not trusted by a command", name), "write there, below [operators.%s]: id = %q", name, card.Successor)
				}
				o["id"], o["comment"] = card.Successor.String(), "successor of "+card.Operator.String()
				return nil
			})
			if err != nil {
				return err
			}
			if _, err := settings.Load(p.config, p.state); err != nil {
				return errors.Join(err, written.undo())
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is now operator %s (%s)\n", name, card.Successor, wire.SpokenFingerprint(card.Successor))
			return written.takeOver(c, yes)
		},
	}
	yesFlag(c, &yes)
	return c
}
