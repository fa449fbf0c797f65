package commands

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/hostscan"
	"banmesh/internal/pairing"
	"banmesh/internal/settings"
)

// setup is the answers of a person, or of flags, to the questions of init.
type setup struct {
	yes, enforce, observe, noStart, noTest bool
	topics, publish, allow                 []string
	network, pair                          string
	root                                   string // of the machine; for tests
}

func newInitCommand(p *paths) *cobra.Command {
	s := &setup{root: "/"}
	c := &cobra.Command{
		Use: "init", Short: "Look at this machine and set it up",
		Example: "  sudo banmesh init\n  sudo banmesh init --pair '192.0.2.10 lusab-bidof'\n  sudo banmesh init --yes --enforce --allow 198.51.100.7\n  sudo banmesh init --network invitation.txt",
		Long: `Look at the services of this machine and their logs, propose which ones to watch, and write that into
conf.d/init.toml after showing it. The defaults are safe: offenders are found and shown and nobody is
banned until --enforce or ` + "`agent topics`" + ` says so, nothing is published, and no network is joined.
Run again it proposes the answers that were given before, and tells what is new. With systemd and as root it
starts the service, and at last bans an address for real, in a network that is made for it and taken away again.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return s.run(c, p) },
	}
	f := c.Flags()
	f.BoolVar(&s.yes, "yes", false, "take the proposed answers, ask nothing")
	f.BoolVar(&s.enforce, "enforce", false, "ban offenders; without it they are found, and nobody is banned")
	f.BoolVar(&s.observe, "observe", false, "find offenders and ban nobody, also where an earlier run said --enforce")
	f.BoolVar(&s.noStart, "no-start", false, "do not start the service")
	f.BoolVar(&s.noTest, "no-selftest", false, "do not ban an address in a network made for that at the end")
	f.StringSliceVar(&s.topics, "topics", nil, "watch these topics in place of those that are found")
	f.StringSliceVar(&s.publish, "publish", nil, "share this node's bans in these topics")
	f.StringSliceVar(&s.allow, "allow", nil, "addresses and networks that nobody may ban: your own")
	f.StringVar(&s.network, "network", "", "join a network of others: an invitation, or a file that holds one")
	f.StringVar(&s.pair, "pair", "", "join another server of yours: its address, and the code that its 'banmesh pair' prints")
	c.MarkFlagsMutuallyExclusive("enforce", "observe")
	c.MarkFlagsMutuallyExclusive("network", "pair")
	return c
}

// before holds the answers of an earlier run.
type initBefore struct {
	exists                 bool
	observe                bool
	topics, publish, allow []string
}

func (s *setup) run(c *cobra.Command, p *paths) error {
	if _, err := settings.Load(p.config, p.state); err != nil {
		return err
	}
	was, err := s.earlier(p)
	if err != nil {
		return err
	}
	definitions, err := loadTopics(p)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	report := hostscan.Look(s.root, definitions)
	chosen, err := s.propose(c.Context(), out, report, definitions, was)
	if err != nil {
		return err
	}
	q := newQuestions(c, s.yes)
	enforce := s.enforce || was.exists && !was.observe && !s.observe
	if !s.enforce && !s.observe {
		enforce = q.ask("Ban offenders now? (no: find and show them, ban nobody)", enforce)
	}
	if !s.yes && len(s.allow) == 0 && q.terminal {
		s.allow = q.list("Addresses of yours that nobody may ever ban (logged-in administrators, gateways and resolvers are known already)")
	}
	s.remember(was)
	if !s.yes && len(s.publish) == 0 && len(chosen) > 0 && q.terminal &&
		q.ask("Share this server's bans with others? (address, class of the offence, a count, an end; no log line, user or host name)", false) {
		for _, f := range chosen {
			s.publish = append(s.publish, string(f.Definition.Name))
		}
	}
	if !s.yes && s.network == "" && s.pair == "" && q.terminal {
		s.askOthers(q)
	}
	var host, code string
	if s.pair != "" {
		if host, code, err = splitPair(s.pair); err != nil {
			return err
		}
	}
	if len(chosen) == 0 {
		return cli.Hint(fmt.Errorf("no service with a log that a topic knows was found"), "`agent topics list` names the topics, and --topics sshd chooses one all the same")
	}
	fmt.Fprintf(out, "\nThis is written to %s/%s/init.toml:\n", p.config, config.DropInDirectory)
	tree, err := s.tree(chosen, enforce)
	if err != nil {
		return err
	}
	if err := printTree(out, tree); err != nil {
		return err
	}
	if !s.yes && !q.terminal || !q.ask("Write it?", true) {
		return &cli.Error{Err: fmt.Errorf("nothing was written"), Code: cli.ExitPartly, Hint: "--yes writes it without a question"}
	}
	written, err := p.edit("init", func(t map[string]any) error {
		clear(t)
		for k, v := range tree {
			t[k] = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := settings.Load(p.config, p.state); err != nil {
		return errors.Join(err, written.undo())
	}
	if err := written.takeOver(c, true); err != nil {
		return err
	}
	if s.network != "" {
		v, err := readInvitation(s.network)
		if err != nil {
			return err
		}
		if err := printInvitation(out, v); err != nil {
			return err
		}
		if !q.ask("Join this network, use these brokers and trust these operators?", s.yes) {
			return &cli.Error{Err: fmt.Errorf("the network was not joined"), Code: cli.ExitPartly}
		}
		if err := join(c, p, v, true); err != nil {
			return err
		}
	}
	var paired error
	if s.pair != "" {
		paired = (&pairOptions{noStop: s.noStart}).join(c, p, host, code)
	}
	err = errors.Join(paired, s.start(c, p, enforce), s.selftest(c))
	if err == nil && s.network == "" && s.pair == "" {
		fmt.Fprintln(out, "another server of yours joins with `banmesh pair`")
	}
	return err
}

// askOthers asks with whom this server shares.
func (s *setup) askOthers(q *questions) {
	switch answer := q.line("Share with others? `mine` for a server of yours that has Banmesh, or paste the invitation of friends; nothing for neither"); answer {
	case "mine":
		s.pair = q.line("Run `banmesh pair` on it, and type the address and the code that it prints")
	default:
		s.network = answer
	}
}

// splitPair takes a server's address and its code apart; the command that it prints may
// stand before them.
func splitPair(text string) (host, code string, err error) {
	words := strings.Fields(text)
	if i := slices.Index(words, "pair"); i >= 0 {
		words = words[i+1:]
	}
	if len(words) < 2 {
		return "", "", cli.Usage("want another server's address and the code that `banmesh pair` prints there, not %q", text)
	}
	code = strings.Join(words[1:], " ")
	if _, err := pairing.ParseCode(code); err != nil {
		return "", "", cli.Usage("%v", err)
	}
	return words[0], code, nil
}

// remember takes the answers of before where nobody gave others.
func (s *setup) remember(was initBefore) {
	if len(s.publish) == 0 {
		s.publish = was.publish
		if len(s.topics) > 0 { // those that are watched no more have nothing to share
			s.publish = slices.DeleteFunc(slices.Clone(s.publish), func(name string) bool { return !slices.Contains(s.topics, name) })
		}
	}
	for _, x := range was.allow {
		if !slices.Contains(s.allow, x) {
			s.allow = append(s.allow, x)
		}
	}
}

// earlier reads the files of an earlier run.
func (s *setup) earlier(p *paths) (b initBefore, err error) {
	_, err = config.EditDropIn(p.config, "init", func(tree map[string]any) error {
		b.exists = len(tree) > 0
		all, _ := tree["topics"].(map[string]any)
		for name, x := range all {
			b.topics = append(b.topics, name)
			t, _ := x.(map[string]any)
			b.observe = b.observe || t["observe"] == true
			if t["publish"] == true {
				b.publish = append(b.publish, name)
			}
		}
		slices.Sort(b.topics)
		slices.Sort(b.publish)
		never, _ := tree["never_ban"].([]any)
		for _, x := range never {
			if entry, ok := x.(map[string]any); ok {
				b.allow = append(b.allow, fmt.Sprint(entry["target"]))
			}
		}
		return errLook
	})
	if errors.Is(err, errLook) {
		err = nil
	}
	slices.Sort(b.topics)
	return b, err
}

// errLook ends an edit that only reads.
var errLook = errors.New("only looked at")
