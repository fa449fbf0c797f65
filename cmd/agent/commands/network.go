package commands

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/keys"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

func newNetworkCommand(p *paths) *cobra.Command {
	return group("network", "Join a network by an invitation, or invite others",
		newNetworkJoinCommand(p), newNetworkShowCommand(), newNetworkInviteCommand(p))
}

// readInvitation takes an invitation as it stands, from a file, or from
// standard input for "-".
func readInvitation(s string) (*wire.Invitation, error) {
	text := s
	if !strings.HasPrefix(s, wire.InvitationPrefix) {
		b, err := readSmall(s)
		if err != nil {
			return nil, cli.Hint(err, "an invitation begins with %s; a broker alone goes into agent.toml: [[brokers]] url = \"ssl://HOST:8883\"", wire.InvitationPrefix)
		}
		text = string(b)
	}
	// A text that was sent by mail may be broken over lines.
	v, err := wire.ParseInvitation(strings.Join(strings.Fields(text), ""), time.Now())
	switch {
	case errors.Is(err, wire.ErrInvitationExpired):
		return nil, cli.Hint(err, "ask operator %s for a new one", v.Operator)
	case err != nil:
		return nil, cli.Hint(err, "copy the invitation again, all of it")
	}
	return v, nil
}

func printInvitation(w io.Writer, v *wire.Invitation) error {
	t := cli.NewTable(w)
	t.Row("network", v.Network)
	t.Row("invited by", fmt.Sprintf("%s (%s)", v.Operator, wire.SpokenFingerprint(v.Operator)))
	if v.Note != "" {
		t.Row("note", v.Note)
	}
	t.Row("made", v.Issued.Format(time.DateOnly)+", good until "+v.Expires.Format(time.DateOnly))
	for _, b := range v.Brokers {
		t.Row("broker", b)
	}
	for _, o := range v.Trusted {
		t.Row("suggests to trust", fmt.Sprintf("%s  %s", o.Operator, o.Name))
	}
	for _, x := range v.Topics {
		t.Row("suggests the topic", string(x))
	}
	return t.Flush()
}

// invitationReport is the answer of `agent network show`.
type invitationReport struct {
	Network  string            `json:"network"`
	Operator ban.Operator      `json:"operator"`
	Issued   time.Time         `json:"issued"`
	Expires  time.Time         `json:"expires"`
	Note     string            `json:"note,omitempty"`
	Brokers  []string          `json:"brokers"`
	Topics   []ban.Topic       `json:"topics"`
	Trusted  []invitedOperator `json:"trusted"`
}

type invitedOperator struct {
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
}

func reportInvitation(v *wire.Invitation) invitationReport {
	r := invitationReport{v.Network, v.Operator, v.Issued, v.Expires, v.Note, append([]string{}, v.Brokers...), append([]ban.Topic{}, v.Topics...), []invitedOperator{}}
	for _, o := range v.Trusted {
		r.Trusted = append(r.Trusted, invitedOperator{o.Operator, o.Name})
	}
	return r
}

func newNetworkShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show INVITATION", Short: "Show an invitation and change nothing",
		Example: "  agent network show invitation.txt",
		Args:    exactly(1, "an invitation, a file that holds one, or -"),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := readInvitation(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), reportInvitation(v))
			}
			return printInvitation(c.OutOrStdout(), v)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newNetworkJoinCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "join INVITATION", Short: "Set network, brokers and trusted operators from a signed invitation",
		Example: "  agent network join banmesh:AbCd...\n  agent network join invitation.txt --yes",
		Long: `Show an invitation and, when you agree, write what it says into the configuration: the network's name, its
brokers, and the operators that it suggests to trust. The signature proves who wrote it, not that the writer deserves
trust: compare the words with the operator over another channel. Bans that begin or end by it, where topics are accepted
already, are told and asked about. Nothing else is accepted or published until you ask for it with ` + "`agent topics subscribe` and `agent topics publish`" + `.
` + cli.ExitHelp,
		Args: exactly(1, "an invitation, a file that holds one, or -"),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := readInvitation(args[0])
			if err != nil {
				return err
			}
			out := c.OutOrStdout()
			if err := printInvitation(out, v); err != nil {
				return err
			}
			if !yes {
				fmt.Fprint(out, "\nJoin this network, use these brokers and trust these operators? [y/N] ")
				line := bufio.NewScanner(io.LimitReader(c.InOrStdin(), 64))
				line.Scan()
				if answer := strings.ToLower(strings.TrimSpace(line.Text())); answer != "y" && answer != "yes" {
					return &cli.Error{Err: errors.New("nothing was changed"), Code: cli.ExitError, Hint: "say yes, or use --yes where nobody can answer"}
				}
			}
			return join(c, p, v, yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// join writes the drop-in files of an invitation.
func join(c *cobra.Command, p *paths, v *wire.Invitation, yes bool) error {
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return err
	}
	conf, err := config.Load(p.config)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	var trusted *change
	if len(v.Trusted) > 0 {
		if trusted, err = p.edit(peersDropIn, func(tree map[string]any) error {
			var names []string
			for _, o := range v.Trusted {
				if known, ok := set.Policy().Name(o.Operator); ok {
					fmt.Fprintf(out, "%s is trusted already, as %s\n", o.Operator, known)
					continue
				}
				name := peerName(o.Name, o.Operator, func(s string) bool { _, ok := set.Policy().Operator(s); return ok })
				entry := config.Table(tree, "operators", name)
				entry["id"], entry["since"] = o.Operator.String(), time.Now().UTC().Truncate(time.Second)
				entry["comment"] = "by invitation of " + v.Operator.String()
				names = append(names, name)
				fmt.Fprintf(out, "%s is operator %s\n", name, o.Operator)
			}
			setRules(tree, joined(set, names...))
			return nil
		}); err != nil {
			return err
		}
	}
	written, err := p.edit("network", func(tree map[string]any) error {
		tree["network"] = v.Network
		// Those of an invitation before are replaced; a person's own stay,
		// and a broker that is named twice would be refused.
		own := map[string]int{}
		for _, b := range conf.Brokers {
			for _, u := range append([]string{b.URL}, b.Others...) {
				own[u]++
			}
		}
		before, _ := tree["brokers"].([]any)
		for _, b := range before {
			entry, _ := b.(map[string]any)
			others, _ := entry["others"].([]any)
			for _, u := range append([]any{entry["url"]}, others...) {
				own[fmt.Sprint(u)]--
			}
		}
		var list []any
		for _, u := range v.Brokers {
			addresses := strings.Fields(u)
			if len(addresses) == 0 {
				return errors.New("the invitation names a broker without an address")
			}
			if i := slices.IndexFunc(addresses, func(s string) bool { return own[s] > 0 }); i >= 0 {
				fmt.Fprintf(out, "%s is in the configuration already\n", addresses[i])
				continue
			}
			entry := map[string]any{"url": addresses[0]}
			if len(addresses) > 1 {
				entry["others"] = addresses[1:]
			}
			list = append(list, entry)
		}
		if tree["brokers"] = list; len(list) == 0 {
			delete(tree, "brokers")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := settings.Load(p.config, p.state); err != nil {
		return err
	}
	for _, t := range v.Topics {
		fmt.Fprintf(out, "to accept its bans: agent topics subscribe %s\n", t)
	}
	if trusted != nil {
		written.also, written.before = trusted.undo, trusted.before
	}
	if err := written.takeOverBeyond(c, yes, 0, 0); !wantsRestart(err) {
		return err
	}
	// A network or broker that is new: bans are in the kernel while the service restarts.
	followed, err := follow(c, p, true, false, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "written to %s\n%s\n", written.path, followed.text)
	return nil
}

// peerName makes a name of an invitation's name of an operator: foreign text
// is not used as it stands.
func peerName(s string, o ban.Operator, taken func(string) bool) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
	s = strings.Trim(s[:min(len(s), maxName)], "-")
	if _, err := ban.ParseTopic(s); err != nil || taken(s) {
		s = "op-" + o.String()[:8]
	}
	return s
}

func newNetworkInviteCommand(p *paths) *cobra.Command {
	var dir, network, note string
	var brokers, topics, trust []string
	var days int
	c := &cobra.Command{
		Use: "invite", Short: "Make a signed invitation to a network",
		Example: "  agent network invite --broker ssl://broker.example.org:8883 --topic sshd --trust self --trust bob",
		Long: `Make an invitation, signed by this operator's root key, that others pass to ` + "`agent network join`" + `. It holds
no secret and gives no rights: it only saves typing. --trust names operators that this node trusts, or self.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			conf, err := config.Load(p.config)
			if err != nil {
				return err
			}
			if dir == "" {
				dir = p.state
			}
			o, err := keys.OpenStore(dir)
			if err != nil {
				return keyAdvice(err)
			}
			if network == "" {
				network = networkOf(conf)
			}
			now := time.Now()
			v := &wire.Invitation{Network: network, Issued: now, Note: note, Expires: now.AddDate(0, 0, days)}
			for _, b := range conf.Brokers {
				if len(brokers) == 0 {
					v.Brokers = append(v.Brokers, strings.Join(append([]string{b.URL}, b.Others...), " "))
				}
			}
			v.Brokers = append(v.Brokers, brokers...)
			if len(v.Brokers) == 0 {
				return cli.Usage("an invitation names a broker that others can reach: --broker URL")
			}
			for _, s := range topics {
				t, err := ban.ParseTopic(s)
				if err != nil {
					return cli.Usage("--topic: %v", err)
				}
				v.Topics = append(v.Topics, t)
			}
			if v.Trusted, err = trustedOf(trust, set, o); err != nil {
				return err
			}
			text, err := v.Sign(o.Root())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), text)
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&network, "network", "", "network (default: that of the configuration)")
	f.StringArrayVar(&brokers, "broker", nil, "URL of a broker (default: those of the configuration)")
	f.StringArrayVar(&topics, "topic", nil, "a topic to suggest")
	f.StringArrayVar(&trust, "trust", nil, "an operator to suggest: a name that this node knows, or self")
	f.StringVar(&note, "note", "", "a line for the reader")
	f.IntVar(&days, "days", 30, "for how many days the invitation is good")
	addDir(c, &dir)
	return c
}

// trustedOf looks up the operators that an invitation suggests.
func trustedOf(names []string, set *settings.Settings, o *keys.Store) (out []wire.Trusted, err error) {
	for _, name := range names {
		x := wire.Trusted{Weight: 100, Name: name}
		if name == "self" {
			x.Operator = o.Operator()
			if card, _ := o.Card(); card != nil {
				x.Name = card.Name
			}
		} else {
			id, ok := set.Policy().Operator(name)
			if !ok {
				return nil, &cli.Error{Err: fmt.Errorf("no operator %q is known here", name), Code: cli.ExitUsage, Hint: "see `agent peers list`"}
			}
			x.Operator = id
		}
		if !slices.ContainsFunc(out, func(y wire.Trusted) bool { return y.Operator == x.Operator }) {
			out = append(out, x)
		}
	}
	return out, nil
}

func networkOf(conf *config.Loaded) string {
	if conf.Network != "" {
		return conf.Network
	}
	return settings.DefaultNetwork
}
