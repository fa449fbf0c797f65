package commands

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

func newKeyCommand(p *paths) *cobra.Command {
	c := group("key", "Manage the keys of this node and its operator",
		newKeyShowCommand(p), newKeyCardCommand(p), newKeyBackupCommand(p), newKeyRestoreCommand(p), newKeyOperatorCommand(p), newKeyNodeCommand(p), newKeyInstallDocumentCommand(p))
	c.Long = `An operator, a person or a group, has a root key; each of its machines, a node, has a key of its own that
the root key certifies for at most 90 days. An agent that starts for the first time makes both.

To keep the root key on another machine, which needs no network:

  desk$   agent key operator new ~/operator-keys --name alice --contact mailto:alice@example.org
  node$   agent key node request > node.request
  desk$   agent key node certify node.request --dir ~/operator-keys > alice.card
  node$   agent key node install alice.card

Certify again before 90 days are over; nobody who trusts the operator has to do anything.
` + cli.ExitHelp
	return c
}

// keyReport is the output of `agent key show`.
type keyReport struct {
	Operator    string    `json:"operator"`
	Fingerprint string    `json:"fingerprint"`
	Name        string    `json:"name,omitempty"`
	Root        bool      `json:"root_key_here"`
	Node        string    `json:"node"`
	Certified   bool      `json:"certified"`
	Until       time.Time `json:"certified_until,omitzero"`
	Serial      uint64    `json:"card_serial"`
	Nodes       int       `json:"nodes"`
	Revoked     int       `json:"revoked"`
}

func newKeyShowCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show", Short: "Show who this node is",
		Example: "  agent key show",
		Long: `Show who this node is. The eight words are for comparing the operator's identity with somebody on the
telephone: they hold all of it.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			id, err := keys.Load(p.state)
			if err != nil {
				return keyAdvice(err)
			}
			card, _ := id.Card()
			r := keyReport{
				Operator: id.Operator().String(), Fingerprint: wire.SpokenFingerprint(id.Operator()), Root: id.HasRoot(),
				Node: id.Node().String(), Until: id.Expires(),
			}
			if card != nil {
				r.Name, r.Serial, r.Nodes, r.Revoked = card.Name, card.Serial, len(card.Certificates), len(card.Revocations)
				r.Certified = card.Certifies(id.NodeKey(), time.Now()) == nil
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), r)
			}
			t := cli.NewTable(c.OutOrStdout())
			t.Row("operator", strings.TrimSpace(r.Operator+"  "+r.Name))
			t.Row("in words", r.Fingerprint)
			t.Row("root key", map[bool]string{true: "on this machine", false: "on another machine"}[r.Root])
			t.Row("node", r.Node)
			switch {
			case r.Certified:
				t.Row("certified", fmt.Sprintf("until %s, in %s", r.Until.Format(time.DateOnly), cli.Short(time.Until(r.Until))))
			case r.Until.IsZero():
				t.Row("certified", "no: `agent key node request`")
			default:
				t.Row("certified", "no: it ended on "+r.Until.Format(time.DateOnly))
			}
			t.Row("card", fmt.Sprintf("number %d, %s, %s", r.Serial, plural(r.Nodes, "node"), plural(r.Revoked, "revoked node")))
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// keyAdvice gives the way out where an identity cannot be used.
func keyAdvice(err error) error {
	switch {
	case errors.Is(err, keys.ErrNoIdentity):
		return cli.Hint(err, "`agent run` makes them at its first start; `agent key node request` makes a node's key for an operator whose root key is elsewhere")
	case errors.Is(err, keys.ErrNotCertified):
		return cli.Hint(err, "`agent key node request` here, `agent key node certify` where the root key is, then `agent key node install` here")
	case errors.Is(err, keys.ErrNoRoot):
		return cli.Hint(err, "do this where the root key is, with --dir, and bring the card here with `agent key node install`")
	case errors.Is(err, keys.ErrOtherMachine):
		return otherMachine(err)
	case errors.Is(err, keys.ErrKeyMode):
		return cli.Hint(err, "chmod 600 the file, and consider who may have read it")
	}
	return err
}

func newKeyCardCommand(p *paths) *cobra.Command {
	var asJSON, text bool
	c := &cobra.Command{
		Use: "card [FILE]", Short: "Show or export an operator's card",
		Example: "  agent key card --text > alice.card\n  agent key card alice.card",
		Long: `Show a card: the one in FILE, or this node's operator's own. With --text print it as one line, to be given
to others; they can pass it to ` + "`agent peers trust`" + `. A card is no secret.
` + cli.ExitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var card *wire.Card
			var raw []byte
			var err error
			if len(args) == 1 {
				card, raw, err = readCard(args[0])
			} else {
				var id *keys.Identity
				if id, err = keys.Load(p.state); err == nil {
					card, raw = id.Card()
				}
			}
			if err != nil {
				return keyAdvice(err)
			}
			if text {
				_, err := fmt.Fprintln(c.OutOrStdout(), wire.CardText(raw))
				return err
			}
			m, err := wire.Open(wire.Name{Kind: wire.KindCard, Operator: card.Operator}, raw)
			if err != nil {
				return err
			}
			d := m.Describe()
			if asJSON {
				return cli.JSON(c.OutOrStdout(), d)
			}
			return printCard(c.OutOrStdout(), card)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&text, "text", false, "print the card as a line of text")
	return c
}

func printCard(w io.Writer, card *wire.Card) error {
	t := cli.NewTable(w)
	t.Row("operator", card.Operator.String())
	t.Row("in words", wire.SpokenFingerprint(card.Operator))
	for _, x := range [][2]string{{"name", card.Name}, {"contact", card.Contact}, {"criteria", card.Criteria}} {
		if x[1] != "" {
			t.Row(x[0], x[1])
		}
	}
	t.Row("card", fmt.Sprintf("number %d of %s", card.Serial, card.Issued.Format(time.DateTime)))
	if card.Successor != (ban.Operator{}) {
		t.Row("successor", card.Successor.String())
	}
	for _, x := range card.Certificates {
		t.Row("node", x.Node().String()+", until "+x.NotAfter.Format(time.DateOnly))
	}
	for _, x := range card.Revocations {
		t.Row("revoked", x.Node.String()+", not believed since "+x.Since.Format(time.DateTime))
	}
	return t.Flush()
}

// maxRequestFile bounds the small files that people pass on.
const maxRequestFile = 64 << 10

// readSmall reads a file, or standard input for "-".
func readSmall(path string) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRequestFile+1))
	if err == nil && len(b) > maxRequestFile {
		err = fmt.Errorf("%s is larger than %d KiB", path, maxRequestFile>>10)
	}
	return b, err
}

func readCard(path string) (*wire.Card, []byte, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, nil, err
	}
	card, raw, err := wire.ParseCardText(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return card, raw, nil
}

func newKeyBackupCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "backup DIR", Short: "Copy the keys and the card into a new directory",
		Example: "  agent key backup /media/stick/banmesh-keys",
		Long: `Copy the keys and the card into a new directory. Who has the copy can speak for this node, and with the
root key for the operator. ` + "`agent key restore DIR`" + ` puts it back.
` + cli.ExitHelp,
		Args: exactly(1, "a directory that does not exist yet"),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := keys.Backup(p.state, args[0])
			if err != nil {
				return keyAdvice(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "copied to %s: %s\n", args[0], strings.Join(files, ", "))
			return nil
		},
	}
}

// cardFlags are the fields of a card that a person may set.
type cardFlags struct{ name, contact, criteria, successor string }

func (f *cardFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "name", "", "what the operator calls itself")
	c.Flags().StringVar(&f.contact, "contact", "", "where to write about a ban, such as mailto:abuse@example.org")
	c.Flags().StringVar(&f.criteria, "criteria", "", "URL of a page that says what is banned, and for how long")
	c.Flags().StringVar(&f.successor, "successor", "", "the operator that may take this one's place")
}

// change applies the flags that were given to a card.
func (f *cardFlags) change(c *cobra.Command) (func(*wire.Card), error) {
	var successor ban.Operator
	if f.successor != "" {
		var err error
		if successor, err = ban.ParseOperator(f.successor); err != nil {
			return nil, cli.Usage("--successor: %v", err)
		}
	}
	for _, s := range []string{f.name, f.contact, f.criteria} {
		if !wire.PlainText(s) || len(s) > wire.MaxText {
			return nil, cli.Usage("a card's texts have at most %d plain characters", wire.MaxText)
		}
	}
	if len(f.name) > wire.MaxCardName {
		return nil, cli.Usage("--name: at most %d characters", wire.MaxCardName)
	}
	return func(card *wire.Card) {
		for name, set := range map[string]func(){
			"name":      func() { card.Name = f.name },
			"contact":   func() { card.Contact = f.contact },
			"criteria":  func() { card.Criteria = f.criteria },
			"successor": func() { card.Successor = successor },
		} {
			if c.Flags().Changed(name) {
				set()
			}
		}
	}, nil
}

func newKeyOperatorCommand(p *paths) *cobra.Command {
	var flags cardFlags
	create := &cobra.Command{
		Use: "new DIR", Short: "Make an operator's root key and card in a directory of their own",
		Example: "  agent key operator new ~/operator-keys --name alice",
		Args:    exactly(1, "a directory"),
		RunE: func(c *cobra.Command, args []string) error {
			change, err := flags.change(c)
			if err != nil {
				return err
			}
			o, err := keys.CreateStore(args[0], time.Now(), change)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "operator %s\nin words %s\nkeep %s safe: who has it speaks for the operator\n", o.Operator(), wire.SpokenFingerprint(o.Operator()), args[0])
			return nil
		},
	}
	flags.add(create)
	var dir string
	var edit cardFlags
	set := &cobra.Command{
		Use: "set", Short: "Change what the operator's card says",
		Example: "  agent key operator set --contact mailto:abuse@example.org",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			change, err := edit.change(c)
			if err != nil {
				return err
			}
			return changeCard(c, p, dir, change)
		},
	}
	edit.add(set)
	addDir(set, &dir)
	return group("operator", "The operator's root key and card", create, set)
}

func addDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", "", "directory of the operator's root key (default: the state directory)")
}

// changeCard signs the next card and says so.
func changeCard(c *cobra.Command, p *paths, dir string, change func(*wire.Card)) error {
	if dir == "" {
		dir = p.state
	}
	o, err := keys.OpenStore(dir)
	if err != nil {
		return keyAdvice(err)
	}
	if err := o.Change(time.Now(), change); err != nil {
		return err
	}
	card, _ := o.Card()
	fmt.Fprintf(c.ErrOrStderr(), "card number %d is signed\n", card.Serial)
	if dir != p.state {
		fmt.Fprintf(c.ErrOrStderr(), "next, on a node that it certifies: agent key node install %s\n", filepath.Join(dir, "operator.card"))
		return nil
	}
	return reload(c, p, p.state)
}

func newKeyNodeCommand(p *paths) *cobra.Command {
	return group("node", "Certificates of nodes",
		newKeyNodeRequestCommand(p), newKeyNodeCertifyCommand(p), newKeyNodeInstallCommand(p), newKeyNodeRevokeCommand(p), newKeyNodeRotateCommand(p), newKeyNodeMoveCommand(p))
}

func newKeyNodeRequestCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "request", Short: "Print a request to certify this node; makes its key if there is none",
		Example: "  agent key node request > node.request",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := keys.RequestText(p.state, time.Now())
			if err != nil {
				return keyAdvice(err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), text)
			return err
		},
	}
}

func newKeyNodeCertifyCommand(p *paths) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "certify REQUEST", Short: "Certify a node for 90 days, or renew it; prints the operator's new card",
		Example: "  agent key node certify node.request --dir ~/operator-keys > alice.card",
		Long: `Certify a node for 90 days, or renew it, where the operator's root key is. REQUEST is a file, or - for
standard input. The new card is printed for ` + "`agent key node install`" + ` on the node; other nodes of the operator
learn of it from the brokers. Check with who made the request that it is theirs: the node's identity is printed.
` + cli.ExitHelp,
		Args: exactly(1, "a request"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readSmall(args[0])
			if err != nil {
				return err
			}
			key, made, err := wire.ParseRequest(string(b))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if dir == "" {
				dir = p.state
			}
			o, err := keys.OpenStore(dir)
			if err != nil {
				return keyAdvice(err)
			}
			now := time.Now()
			if err := o.Change(now, func(card *wire.Card) { card.Certify(key, now) }); err != nil {
				return err
			}
			card, raw := o.Card()
			fmt.Fprintf(c.ErrOrStderr(), "node %s, request of %s: certified for 90 days in card number %d\n", ban.NodeOf(key[:]), made.Format(time.DateTime), card.Serial)
			_, err = fmt.Fprintln(c.OutOrStdout(), wire.CardText(raw))
			return err
		},
	}
	addDir(c, &dir)
	return c
}

func newKeyNodeInstallCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "install CARD", Short: "Install the operator's card that certifies this node",
		Example: "  agent key node install alice.card",
		Args:    exactly(1, "a card"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readSmall(args[0])
			if err != nil {
				return err
			}
			card, err := keys.InstallNodeCard(p.state, b)
			if err != nil {
				return keyAdvice(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "this node speaks for operator %s (%s)\n", card.Operator, wire.SpokenFingerprint(card.Operator))
			return reload(c, p, p.state)
		},
	}
}

func newKeyNodeRevokeCommand(p *paths) *cobra.Command {
	var dir, since string
	c := &cobra.Command{
		Use: "revoke NODE", Short: "Revoke a node whose key is lost or stolen",
		Example: "  agent key node revoke 6jscs25xwxy65x3n --since 2026-11-20T08:00:00Z",
		Long: `Revoke a node. Who follows the operator takes nothing from the node any more and drops what it heard from
it since the given time: all of it by default.
` + cli.ExitHelp,
		Args: exactly(1, "a node"),
		RunE: func(c *cobra.Command, args []string) error {
			node, err := ban.ParseNode(args[0])
			if err != nil {
				return cli.Usage("%v", err)
			}
			from := time.Unix(0, 0)
			if since != "" {
				if from, err = time.Parse(time.RFC3339, since); err != nil {
					return cli.Usage("--since: want a time such as %s", time.Now().UTC().Format(time.RFC3339))
				}
			}
			return changeCard(c, p, dir, func(card *wire.Card) { card.Revoke(node, from) })
		},
	}
	c.Flags().StringVar(&since, "since", "", "drop what was heard from then on (RFC 3339; default: everything)")
	addDir(c, &dir)
	return c
}

func newKeyNodeRotateCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Make a new key for this node; stop the agent first",
		Example: "  systemctl stop banmesh-agent && agent key node rotate && systemctl start banmesh-agent",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			old, next, err := keys.RotateNode(p.state, time.Now())
			if err != nil {
				return keyAdvice(err)
			}
			if err := keys.Move(p.state, thisMachine()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "node %s is now %s\n", old, next)
			if _, err := keys.OpenStore(p.state); errors.Is(err, keys.ErrNoRoot) {
				fmt.Fprintf(c.OutOrStdout(), "next: `agent key node request`, and have %s revoked\n", old)
			}
			return nil
		},
	}
}
