package commands

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
	"banmesh/internal/span"
)

func newPeersAddCommand(p *paths) *cobra.Command {
	var probation, comment string
	var yes bool
	c := &cobra.Command{
		Use:     "add NAME ID|CARD",
		Short:   "Get to know an operator: its bans are watched for 72 hours before they apply",
		Example: "  agent peers add carol 6otxxr3xmzvq3wmhdzurq6ssnm\n  agent peers add carol ./carol.card --probation 7d",
		Long: `Add an operator on probation: for 72 hours, or as long as --probation says, its bans are only watched (a target that it
names is banned at its first offence here), and ` + "`agent peers show NAME`" + ` says what it would have banned. Afterwards it
counts as the rules say. ` + "`agent peers trust`" + ` does the same without probation.
` + cli.ExitHelp,
		Args: exactly(2, "a name and an identity or card"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if t, err := ban.ParseTopic(name); err != nil || len(t) > maxName {
				return cli.Usage("%q is no name: want 1 to %d of a-z, 0-9 and '-'", name, maxName)
			}
			operator, err := readOperator(args[1])
			if err != nil {
				return err
			}
			d, err := span.Parse(probation)
			if err != nil {
				return cli.Usage("--probation: %v", err)
			}
			if d > policy.MaxProbation {
				return cli.Usage("--probation: at most %s", span.Format(policy.MaxProbation))
			}
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			if _, ok := set.Policy().Operator(name); ok {
				return cli.Hint(fmt.Errorf("an operator is called %s already", name), "see `agent peers list`")
			}
			if other, ok := set.Policy().Name(operator); ok {
				return cli.Hint(fmt.Errorf("that operator is known as %s already", other), "see `agent peers show %s`", other)
			}
			since := time.Now().UTC().Truncate(time.Second)
			rules := joined(set, name)
			written, err := p.edit(peersDropIn, func(tree map[string]any) error {
				o := config.Table(tree, "operators", name)
				setRules(tree, rules)
				o["id"], o["since"], o["probation"] = operator.String(), since, span.Of(d).String()
				if comment != "" {
					o["comment"] = comment
				}
				return nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is operator %s, watched only until %s\n", name, operator, clock(since.Add(d)))
			return written.takeOver(c, yes)
		},
	}
	c.Flags().StringVar(&probation, "probation", span.Of(policy.DefaultProbation).String(), "how long its bans are only watched")
	c.Flags().StringVar(&comment, "comment", "", "who that is, for whoever reads the list")
	yesFlag(c, &yes)
	return c
}

// trustFor is `agent peers trust NAME for TOPIC as ban|watch`: it changes the
// topic's rules in the drop-in file.
func trustFor(c *cobra.Command, p *paths, name, topicName, as string, yes bool) error {
	topic, err := ban.ParseTopic(topicName)
	if err != nil {
		return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "see `agent topics list`"}
	}
	if as != "ban" && as != "watch" {
		return cli.Usage("%q: an operator's claims ban or are watched: write `as ban` or `as watch`", as)
	}
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return err
	}
	if _, ok := set.Policy().Operator(name); !ok {
		return cli.Hint(fmt.Errorf("no operator is called %q", name), "`agent peers add %s ID` first", name)
	}
	rules, err := rulesWith(set, topic, name, as)
	if err != nil {
		return err
	}
	ban, watch := rules.Ban, rules.Watch
	written, err := p.edit(peersDropIn, func(tree map[string]any) error {
		t := config.Table(tree, "topics", string(topic))
		t["ban"], t["watch"] = ban, watch
		for key, text := range map[string]string{"require": rules.Require, "suspect": rules.Suspect} {
			if text != "" {
				t[key] = text
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// agent.toml may say otherwise; then it is the one to change.
	if set, err = settings.Load(p.config, p.state); err != nil {
		return err
	}
	now := set.Policy().Source().Topics[string(topic)]
	if now.Ban != ban || now.Watch != watch {
		return cli.Hint(fmt.Errorf("agent.toml has rules of its own for %s", topic), "write there, below [topics.%s]: ban = %q, watch = %q", topic, ban, watch)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: ban = %q, watch = %q\n", topic, ban, watch)
	if x := slices.IndexFunc(set.Topics(), func(t settings.Topic) bool { return t.Topic == topic }); x < 0 || !set.Topics()[x].Subscribe {
		fmt.Fprintf(c.OutOrStdout(), "%s is not accepted yet: `agent topics subscribe %s`\n", topic, topic)
	}
	return written.takeOver(c, yes)
}

// rulesWith gives a topic's rules with an operator's claims banning, or watched.
func rulesWith(set *settings.Settings, topic ban.Topic, name, as string) (control.Rules, error) {
	rules := set.Policy().Source().Topics[string(topic)]
	everyone := set.Peers()
	bans, err1 := readRule(rules.Ban, everyone)
	watches, err2 := readRule(rules.Watch, everyone)
	file := set.RuleFile(topic)
	if file != "" && filepath.Base(file) != peersDropIn+".toml" && len(bans.several)+len(watches.several) > 0 {
		err1 = fmt.Errorf("%q", rules.Ban) // a quorum that a person wrote
	}
	if err := errors.Join(err1, err2); err != nil {
		return control.Rules{}, cli.Hint(fmt.Errorf("the rules of %s are more than a list of names: %w", topic, err), "change them in agent.toml, below [topics.%s]", topic)
	}
	bans.forget(name)
	if as == "ban" {
		watches.one = slices.DeleteFunc(watches.one, func(s string) bool { return s == name })
		bans.add(name)
	} else {
		watches.forget(name)
		watches.one = append(watches.one, name)
	}
	return control.Rules{Accept: true, Ban: bans.String(), Watch: watches.String(), Suspect: rules.Suspect, Require: rules.Require}, nil
}

// nameRule is a rule that names operators and nothing else: some of several,
// any one of others, or weak claims of some: "3 of alice, bob, carol or any of
// dave or 3 weak of everyone".
type nameRule struct {
	need    int
	several []string
	one     []string
	// weak is a term of weak claims as it was written, "" for none.
	weak string
}

// readRule reads such a rule; "" and `never` name nobody.
func readRule(rule string, known []settings.Peer) (r nameRule, err error) {
	if rule = strings.TrimSpace(rule); rule == "" || rule == "never" {
		return r, nil
	}
	for term := range strings.SplitSeq(rule, " or ") {
		if strings.Contains(term, " weak of ") && r.weak == "" {
			r.weak = strings.TrimSpace(term)
			continue
		}
		count, list, ok := strings.Cut(strings.TrimSpace(term), " of ")
		var names []string
		for name := range strings.SplitSeq(list, ",") {
			switch name = strings.TrimSpace(name); {
			case name == "everyone":
				for _, x := range known {
					names = append(names, x.Name)
				}
			case !slices.ContainsFunc(known, func(x settings.Peer) bool { return x.Name == name }):
				return r, fmt.Errorf("%q", rule)
			default:
				names = append(names, name)
			}
		}
		need, err := strconv.Atoi(count)
		switch {
		case ok && count == "any" && r.one == nil:
			r.one = names
		case ok && err == nil && need > 0 && r.several == nil:
			r.need, r.several = need, names
		default:
			return r, fmt.Errorf("%q", rule)
		}
	}
	return r, nil
}

// add lets a name count as the rule's others do.
func (r *nameRule) add(name string) {
	if r.several != nil {
		r.several = append(r.several, name)
	} else {
		r.one = append(r.one, name)
	}
}

// forget takes a name out. A rule that so many could never meet asks for all
// that are left.
func (r *nameRule) forget(name string) {
	is := func(s string) bool { return s == name }
	r.one, r.several = slices.DeleteFunc(r.one, is), slices.DeleteFunc(r.several, is)
	r.need = min(r.need, len(r.several))
	head, list, ok := strings.Cut(r.weak, " of ")
	if !ok {
		return
	}
	names := slices.DeleteFunc(strings.Split(list, ", "), is)
	if r.weak = head + " of " + strings.Join(names, ", "); len(names) == 0 {
		r.weak = ""
	}
}

func (r *nameRule) String() string {
	var terms []string
	if len(r.several) > 0 {
		terms = append(terms, fmt.Sprintf("%d of %s", r.need, strings.Join(r.several, ", ")))
	}
	if len(r.one) > 0 {
		terms = append(terms, "any of "+strings.Join(r.one, ", "))
	}
	if r.weak != "" {
		terms = append(terms, r.weak)
	}
	if terms == nil {
		return "never"
	}
	return strings.Join(terms, " or ")
}

func newPeersShowCommand(p *paths) *cobra.Command {
	var asJSON bool
	var topic string
	c := &cobra.Command{
		Use:     "show [NAME]",
		Short:   "Show what peers say and of what use that was here",
		Example: "  agent peers show\n  agent peers show alice\n  agent peers show carol --for sshd",
		Long: `Show what peers say and of what use that was: how many bans rest on them, how many offenders here they had named
before, how much others say too, and what spoke against them: disputes, unbans by hand, strikes, claims of guests.
--for TOPIC shows in advance what ` + "`agent peers trust NAME for TOPIC as ban`" + ` would change: the rule, and how many bans would
begin and end.
` + cli.ExitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var list []control.Peer
			if err := p.client().Get(c.Context(), "/v1/peers", nil, &list); err != nil {
				return err
			}
			if len(args) == 1 {
				list = slices.DeleteFunc(list, func(x control.Peer) bool { return x.Name != args[0] && x.Operator.String() != args[0] })
				if len(list) == 0 {
					return cli.Hint(fmt.Errorf("no operator is called %q", args[0]), "see `agent peers list`")
				}
			}
			if topic != "" {
				return showEffect(c, p, args, topic, asJSON)
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(args) == 1 {
				printPeer(c.OutOrStdout(), list[0], time.Now())
				return nil
			}
			return printPeers(c.OutOrStdout(), list, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "for", "", "what trusting the peer in this topic would change")
	return c
}

func printPeers(w io.Writer, list []control.Peer, now time.Time) error {
	if len(list) == 0 {
		fmt.Fprintln(w, "no operator is known, so nothing of others counts: `agent peers add NAME ID`")
		return nil
	}
	t := cli.NewTable(w, "NAME", "STANDING", "CLAIMS", "BANNING", "ALONE", "MET HERE", "STRIKES", "DISPUTED", "UNBANNED", "ALSO OTHERS", "GUESTS")
	t.Cut("STANDING")
	for _, x := range list {
		t.Row(x.Name, peerStanding(x, now), strconv.Itoa(x.Claims), strconv.Itoa(x.Banning), strconv.Itoa(x.Alone), strconv.Itoa(x.Met),
			strconv.Itoa(x.Strikes), strconv.Itoa(x.Disputed), strconv.Itoa(x.Overruled), strconv.Itoa(x.Corroborated), guestRate(x))
		switch {
		case x.Quarantine != nil, x.Trouble != "":
			t.Paint(1, cli.Bad)
		case x.Waiting > 0 || x.Feeds == 0 || x.Probation.After(now):
			t.Paint(1, cli.Doubt)
		}
	}
	return t.Flush()
}

// showEffect shows the difference it would make if an operator's claims banned in a
// topic.
func showEffect(c *cobra.Command, p *paths, args []string, topicName string, asJSON bool) error {
	if len(args) != 1 {
		return cli.Usage("--for is about one peer: name it")
	}
	topic, err := ban.ParseTopic(topicName)
	if err != nil {
		return cli.Usage("--for: %v", err)
	}
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return err
	}
	rules, err := rulesWith(set, topic, args[0], "ban")
	if err != nil {
		return err
	}
	var e control.Effect
	if err := p.client().Post(c.Context(), "/v1/effect", control.RulesRequest{Topic: topic, Rules: rules}, &e); err != nil {
		return err
	}
	if asJSON {
		return cli.JSON(c.OutOrStdout(), e)
	}
	if len(e.Rules) == 0 {
		fmt.Fprintf(c.OutOrStdout(), "%s bans in %s already\n", args[0], topic)
		return nil
	}
	printEffect(c.OutOrStdout(), e)
	fmt.Fprintf(c.OutOrStdout(), "`agent peers trust %s for %s as ban` does it\n", args[0], topic)
	return nil
}

func peerStanding(x control.Peer, now time.Time) string {
	switch {
	case x.Quarantine != nil:
		return "quarantined: " + x.Quarantine.Why
	case x.Trouble != "":
		return "a feed is " + x.Trouble
	case x.Probation.After(now):
		return "on probation, " + cli.Short(x.Probation.Sub(now)) + " more"
	case x.Waiting > 0:
		return plural(x.Waiting, "claim") + " waiting"
	case x.Feeds == 0:
		return "nothing heard"
	}
	return "in good standing"
}

// guestRate says which share of a peer's claims is of guests of this node.
func guestRate(x control.Peer) string {
	if x.Measured == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2g %%", 100*float64(x.Guests)/float64(x.Measured))
}

func printPeer(w io.Writer, x control.Peer, now time.Time) {
	fmt.Fprintf(w, "%s is operator %s, %s\n", cli.Printable(x.Name), x.Operator, cli.Printable(peerStanding(x, now)))
	fmt.Fprintf(w, "  claims %s in %s; %d also made by others\n", plural(x.Claims, "target"), plural(x.Feeds, "feed"), x.Corroborated)
	fmt.Fprintf(w, "  bans   %d in force rest on it, %d on it alone\n", x.Banning, x.Alone)
	fmt.Fprintf(w, "  use    %s here had been named by it before they came\n", plural(x.Met, "offender"))
	if x.Refused > 0 {
		fmt.Fprintf(w, "  edge   %d packets and requests were refused by its word at bouncers, since the start\n", x.Refused)
	}
	if x.RefusedShare > 0 {
		fmt.Fprintf(w, "  edge   about %d more, its share of what was reported for several operators together\n", x.RefusedShare)
	}
	if x.Measured > 0 {
		fmt.Fprintf(w, "  false  %s of its %s, weak ones left out, are of guests of this node (%s)\n", strconv.Itoa(x.Guests), plural(x.Measured, "claim"), guestRate(x))
	}
	fmt.Fprintf(w, "  doubt  %d disputed, %d unbanned here by hand, %s\n", x.Disputed, x.Overruled, plural(x.Total, "strike"))
	for _, s := range x.Recent {
		fmt.Fprintf(w, "  strike %s claimed %s in %s: %s\n", clock(s.At), s.Target, s.Topic, cli.Printable(s.Why))
	}
	if x.Quarantine != nil {
		fmt.Fprintf(w, "  since %s its claims count for nothing; `agent undo %s --release` ends that\n", clock(x.Quarantine.Since), cli.Printable(x.Name))
	}
}
