package commands

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

func newPeersCommand(p *paths) *cobra.Command {
	c := group("peers", "Choose whose bans this node believes, and see of what use they were",
		newPeersTrustCommand(p), newPeersAddCommand(p), newPeersListCommand(p), newPeersShowCommand(p), newPeersRemoveCommand(p),
		newPeersCardCommand(p), newPeersSucceedCommand(p), newPeersFollowCommand(p), newPeersUnfollowCommand(p), newPeersListsCommand(p), newPeersPublishTrustCommand(p))
	show := newPeersShowCommand(p)
	c.Flags().AddFlagSet(show.Flags())
	c.Long = show.Long
	c.RunE = func(c *cobra.Command, _ []string) error { return show.RunE(c, nil) }
	return c
}

// peersDropIn is the drop-in file of these commands.
const peersDropIn = "peers"

// maxName bounds an operator's name here.
const maxName = 32

func newPeersTrustCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:     "trust NAME ID|CARD | trust NAME for TOPIC as ban|watch",
		Short:   "Trust an operator: in topics that you subscribe to, its bans apply here",
		Example: "  agent peers trust alice 6otxxr3xmzvq3wmhdzurq6ssnm\n  agent peers trust alice ./alice.card\n  agent peers trust carol for livepeer as watch",
		Long: `Trust an operator: in every topic that this node subscribes to and has no policy of its own for, its bans
apply here. NAME is yours to choose. ID is the operator's identity, 26 characters; compare it with the
operator over another channel, because nothing else says who it is. CARD is a file with the operator's card.

The second form chooses for one topic whether the claims of an operator that is known already ban, or are watched: a
watched target is banned at its first offence here, and is left alone if it does nothing.
` + cli.ExitHelp,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 5 && args[1] == "for" && args[3] == "as" {
				return nil
			}
			return exactly(2, "a name and an identity or card, or NAME for TOPIC as ban|watch")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 5 {
				return trustFor(c, p, args[0], args[2], args[4], yes)
			}
			name := args[0]
			if t, err := ban.ParseTopic(name); err != nil || len(t) > maxName {
				return cli.Usage("%q is no name: want 1 to %d of a-z, 0-9 and '-'", name, maxName)
			}
			operator, err := readOperator(args[1])
			if err != nil {
				return err
			}
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			if old, ok := set.Policy().Operator(name); ok && old != operator {
				return cli.Hint(fmt.Errorf("%s is already the operator %s", name, old), "choose another name, or `agent peers remove %s` first", name)
			}
			if other, ok := set.Policy().Name(operator); ok && other != name {
				return cli.Hint(fmt.Errorf("that operator is already trusted as %s", other), "`agent peers remove %s` first", other)
			}
			rules := joined(set, name)
			written, err := p.edit(peersDropIn, func(tree map[string]any) error {
				o := config.Table(tree, "operators", name)
				o["id"] = operator.String()
				delete(o, "since") // a probation is over
				delete(o, "probation")
				setRules(tree, rules)
				return nil
			})
			if err != nil {
				return err
			}
			if set, err = settings.Load(p.config, p.state); err != nil {
				return errors.Join(err, written.undo())
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is operator %s\n", name, operator)
			printCounts(c.OutOrStdout(), set, name, operator)
			return written.takeOver(c, yes)
		},
	}
	yesFlag(c, &yes)
	return c
}

// printCounts says where an operator's claims count now: the truth, not the
// wish.
func printCounts(w io.Writer, set *settings.Settings, name string, o ban.Operator) {
	var bans, watches []string
	probation := set.Policy().Probation(o).After(time.Now())
	for _, t := range set.Topics() {
		if !slices.Contains(t.Operators, name) {
			continue
		}
		if probation || !namedIn(set, t, name) {
			watches = append(watches, string(t.Topic))
		} else {
			bans = append(bans, string(t.Topic))
		}
	}
	if len(bans)+len(watches) == 0 {
		fmt.Fprintln(w, "its bans apply in no topic yet: `agent topics subscribe TOPIC`")
	}
	if len(bans) > 0 {
		fmt.Fprintf(w, "its bans count in: %s\n", strings.Join(bans, ", "))
	}
	if len(watches) > 0 {
		until := ""
		if probation {
			until = ", on probation until " + clock(set.Policy().Probation(o))
		}
		fmt.Fprintf(w, "its bans are only watched in: %s%s\n", strings.Join(watches, ", "), until)
	}
}

// namedIn says whether a topic's ban rule has an operator.
func namedIn(set *settings.Settings, t settings.Topic, name string) bool {
	o, _ := set.Policy().Operator(name)
	return slices.Contains(set.Policy().Core(t.Topic), o)
}

// readOperator reads an identity, or a card from a file; a card proves itself.
func readOperator(s string) (ban.Operator, error) {
	operator, err := ban.ParseOperator(s)
	if err == nil {
		return operator, nil
	}
	f, openErr := os.Open(s)
	if openErr != nil {
		if strings.ContainsAny(s, "./") { // meant as a file
			err = fmt.Errorf("reading the card: %w", openErr)
		}
		return operator, &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "give the 26 characters that `agent status` shows on the operator's own node, or the file of its card"}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxCard+1))
	if err != nil {
		return operator, fmt.Errorf("reading the card: %w", err)
	}
	card, err := wire.OpenCard(b)
	if err != nil {
		return operator, fmt.Errorf("%s: %w", s, err)
	}
	return card.Operator, nil
}

func newPeersListCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the operators that this node knows, and where they count",
		Example: "  agent peers list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			list := set.Peers()
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no operator is trusted; nothing of others is applied here")
				return nil
			}
			t := cli.NewTable(c.OutOrStdout(), "NAME", "OPERATOR", "COUNTS IN", "COMMENT")
			for _, x := range list {
				t.Row(x.Name, x.Operator.String(), strings.Join(x.Topics, ","), x.Comment)
			}
			return t.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newPeersRemoveCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Stop believing an operator; bans that rest on it alone are lifted",
		Example: "  agent peers remove carol",
		Args:    exactly(1, "an operator's name"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			set, before := settings.Load(p.config, p.state)
			var known []settings.Peer
			if before == nil {
				known = set.Peers()
			}
			written, err := p.edit(peersDropIn, func(tree map[string]any) error {
				operators := config.Table(tree, "operators")
				if _, ok := operators[name]; !ok {
					return errNotOurs
				}
				delete(operators, name)
				forgetPeer(tree, name, known)
				config.Prune(tree)
				return nil
			})
			if errors.Is(err, errNotOurs) {
				return cli.Hint(fmt.Errorf("no operator %q was trusted by this command", name), "see `agent peers list`; what you wrote into agent.toml, you remove there")
			}
			if err != nil {
				return err
			}
			// A rule or group that a person wrote and that names the operator would
			// keep the agent from starting.
			if _, err := settings.Load(p.config, p.state); err != nil && before == nil {
				return cli.Hint(errors.Join(fmt.Errorf("%s is still named elsewhere, so nothing was changed", name), err, written.undo()), "take %s out of those rules and groups first; `agent undo %s` drops what it caused at once", name, name)
			}
			if err := written.takeOver(c, yes); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is no longer trusted\n", name)
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}

// forgetPeer takes an operator out of the rules of a drop-in file.
func forgetPeer(tree map[string]any, name string, known []settings.Peer) {
	topics, _ := tree["topics"].(map[string]any)
	for _, t := range topics {
		rules, _ := t.(map[string]any)
		for _, key := range []string{"ban", "watch", "suspect"} {
			text, _ := rules[key].(string)
			if r, err := readRule(text, known); err == nil && text != "" {
				r.forget(name)
				rules[key] = r.String()
			}
		}
	}
}

var errNotOurs = errors.New("not in the drop-in file")
