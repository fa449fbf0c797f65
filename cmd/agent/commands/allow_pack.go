package commands

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/keys"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
	"banmesh/internal/span"
)

func newAllowPackCommand(p *paths) *cobra.Command {
	return group("pack", "Use lists that others signed of what must not be banned, and sign your own",
		newAllowPackAddCommand(p), newAllowPackListCommand(p), newAllowPackRemoveCommand(p), newAllowPackSignCommand(p))
}

func newAllowPackAddCommand(p *paths) *cobra.Command {
	var from string
	var yes bool
	c := &cobra.Command{
		Use:   "add FILE",
		Short: "Use a signed list, or a newer edition of one",
		Example: "  agent allow pack add crawlers.pack --from 6otxxr3xmzvq3wmhdzurq6ssnm\n" +
			"  curl -fsS https://example.org/crawlers.pack | agent allow pack add -",
		Long: `Use a signed list of addresses that nobody bans here (never-ban), or that many people share, of which peers' claims
are watched only (shared). --from names whose list it is, by identity or by the name of an operator here; afterwards
only that operator's newer editions replace it, and --from is not needed. A pack ends by itself: fetch it again before,
from anywhere, since only its signature is believed. It covers at most the size of a /8, a shared one of a /4.
` + cli.ExitHelp,
		Args: exactly(1, "the file of a pack, or - for standard input"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readPackFile(args[0])
			if err != nil {
				return err
			}
			pack, err := neverban.OpenPack(b)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if !pack.Expires.After(time.Now()) {
				return cli.Hint(fmt.Errorf("the pack %s ended on %s", pack.Name, pack.Expires.Format(time.DateOnly)), "ask for a newer edition")
			}
			if err := mayReplace(p, pack, from); err != nil {
				return err
			}
			path := settings.PackFile(p.config, pack.Name)
			old, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := config.WriteAtomic(path, b, 0o644); err != nil {
				return err
			}
			written, err := p.edit("packs", func(tree map[string]any) error {
				config.Table(tree, "packs", pack.Name)["operator"] = pack.Operator.String()
				return nil
			})
			if err != nil {
				return errors.Join(err, restoreFile(path, old))
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, edition %d of operator %s: %d %s prefixes until %s\n",
				pack.Name, pack.Serial, pack.Operator, len(pack.Entries), pack.Kind, clock(pack.Expires))
			written.also = func() error { return restoreFile(path, old) }
			return written.takeOver(c, yes)
		},
	}
	c.Flags().StringVar(&from, "from", "", "whose list it is: an identity, or an operator's name here")
	yesFlag(c, &yes)
	return c
}

// mayReplace says why a pack is not taken: nobody said that its operator is
// believed, or it is older than the one in use.
func mayReplace(p *paths, pack *neverban.Pack, from string) error {
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return err
	}
	packs := set.Packs()
	for _, old := range packs {
		if old.Name != pack.Name {
			continue
		}
		switch {
		case old.Operator != pack.Operator:
			return cli.Hint(fmt.Errorf("the pack %s is operator %s's, and this one is signed by %s", pack.Name, old.Operator, pack.Operator), "`agent allow pack remove %s` first, if that is meant", pack.Name)
		case old.Kind != pack.Kind:
			return cli.Hint(fmt.Errorf("the pack %s was %s, and this edition is %s", pack.Name, old.Kind, pack.Kind), "`agent allow pack remove %s` first, if that is meant", pack.Name)
		case old.Serial > pack.Serial:
			return fmt.Errorf("edition %d of the pack %s is older than %d, which is in use", pack.Serial, pack.Name, old.Serial)
		}
		if from == "" {
			return nil
		}
	}
	if from == "" {
		return cli.Hint(fmt.Errorf("the pack %s is signed by operator %s, whom nobody has named", pack.Name, pack.Operator), "compare that with its operator over another channel, then say --from %s", pack.Operator)
	}
	operator, ok := set.Policy().Operator(from)
	if !ok {
		if operator, err = ban.ParseOperator(from); err != nil {
			return cli.Usage("--from: no operator is called %q, and it is no identity", from)
		}
	}
	if operator != pack.Operator {
		return fmt.Errorf("the pack %s is signed by operator %s, and not by %s", pack.Name, pack.Operator, operator)
	}
	if len(packs) >= neverban.MaxPacks {
		return cli.Hint(fmt.Errorf("%d packs are in use, and no more can be", len(packs)), "`agent allow pack remove NAME` first")
	}
	return nil
}

// restoreFile puts the bytes before back, nil for no file.
func restoreFile(path string, old []byte) error {
	if old == nil {
		return os.Remove(path)
	}
	return config.WriteAtomic(path, old, 0o644)
}

func readPackFile(name string) ([]byte, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return nil, err
		}
		defer f.Close()
	}
	return io.ReadAll(io.LimitReader(f, neverban.MaxPack+1))
}

func newAllowPackListCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the signed lists in use",
		Example: "  agent allow pack list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			list := set.Packs()
			if asJSON {
				if list == nil {
					list = []settings.Pack{}
				}
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no pack is in use")
				return nil
			}
			t := cli.NewTable(c.OutOrStdout(), "NAME", "KIND", "ENTRIES", "EDITION", "ENDS", "OPERATOR")
			for _, x := range list {
				by := x.Operator.String()
				if x.Signer != "" {
					by = x.Signer + " " + by
				}
				ends := clock(x.Expires)
				if !x.Expires.After(time.Now()) {
					ends = "has ended"
				}
				t.Row(x.Name, string(x.Kind), strconv.Itoa(x.Entries), strconv.FormatUint(x.Serial, 10), ends, by)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newAllowPackRemoveCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Stop using a signed list",
		Example: "  agent allow pack remove crawlers",
		Long:    "Stop using a signed list. Bans that only it kept from being are told, and asked about, before they begin.\n" + cli.ExitHelp,
		Args:    exactly(1, "a pack's name"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if _, err := ban.ParseTopic(name); err != nil {
				return cli.Usage("%q is no pack's name", name)
			}
			written, err := p.edit("packs", func(tree map[string]any) error {
				packs := config.Table(tree, "packs")
				if _, ok := packs[name]; !ok {
					return errNotOurs
				}
				delete(packs, name)
				config.Prune(tree)
				return nil
			})
			if errors.Is(err, errNotOurs) {
				return cli.Hint(fmt.Errorf("no pack %q was added by this command", name), "see `agent allow pack list`; what you wrote into agent.toml, you remove there")
			}
			if err != nil {
				return err
			}
			if err := written.takeOverBeyond(c, yes, 0, 0); err != nil {
				return err
			}
			// Nothing names the file any longer: a kill before this leaves it unused.
			if err := os.Remove(settings.PackFile(p.config, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "the pack %s is no longer used\n", name)
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}

func newAllowPackSignCommand(p *paths) *cobra.Command {
	var dir, name, kind, lasts string
	var edition uint64
	c := &cobra.Command{
		Use:     "sign LIST",
		Short:   "Sign a list with the operator's key, for others to use",
		Example: "  agent allow pack sign offices.list --name offices --for 90d > offices.pack",
		Long: `Sign a list with the operator's key and print the pack. LIST has a prefix a line, perhaps ` + "`until 2026-03-01T00:00:00Z`" + `,
perhaps a comment after '#'. A later edition has a greater number; the default is the time.
` + cli.ExitHelp,
		Args: exactly(1, "the file of a list, or - for standard input"),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := readPackFile(args[0])
			if err != nil {
				return err
			}
			d, err := span.Parse(lasts)
			if err != nil {
				return cli.Usage("--for: %v", err)
			}
			if dir == "" {
				dir = p.state
			}
			store, err := keys.OpenStore(dir)
			if err != nil {
				return keyAdvice(err)
			}
			now := time.Now().UTC().Truncate(time.Second)
			if edition == 0 {
				edition = uint64(now.Unix())
			}
			b, err := neverban.SignPack(store.Root(), neverban.Pack{
				Name: name, Kind: neverban.PackKind(kind), Serial: edition, Issued: now, Expires: now.Add(d),
			}, list)
			if err != nil {
				return err
			}
			_, err = io.Copy(c.OutOrStdout(), bytes.NewReader(b))
			return err
		},
	}
	addDir(c, &dir)
	f := c.Flags()
	f.StringVar(&name, "name", "", "the pack's name: a-z, 0-9 and '-'")
	f.StringVar(&kind, "kind", string(neverban.PackNeverBan), "never-ban, or shared: what many people share is watched only")
	f.StringVar(&lasts, "for", "90d", "how long it holds")
	f.Uint64Var(&edition, "edition", 0, "its number (default: the time)")
	return c
}
