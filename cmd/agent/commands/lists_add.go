package commands

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/settings"
	"banmesh/internal/span"
)

// listFlags are the settings of a list that `agent lists add` writes.
type listFlags struct {
	file, url, format, column, score, rule, lasts, every string
	topics, allow, prefix                                []string
	minimum                                              float64
	most, change                                         int
}

// write puts the settings that were given into a table.
func (f *listFlags) write(c *cobra.Command, into map[string]any) {
	for name, value := range map[string]any{
		"file": f.file, "url": f.url, "format": f.format, "column": f.column, "score": f.score, "rule": f.rule, "for": f.lasts, "every": f.every,
		"minimum": f.minimum, "max-entries": f.most, "max-change": f.change,
	} {
		if c.Flags().Changed(name) {
			into[strings.ReplaceAll(name, "-", "_")] = value
		}
	}
	for key, list := range map[string][]string{"topics": f.topics, "allow": f.allow, "prefix": f.prefix} {
		if len(list) > 0 {
			texts := make([]any, 0, len(list))
			for _, s := range list {
				texts = append(texts, s)
			}
			into[key] = texts
		}
	}
}

// add gives the command its flags.
func (f *listFlags) add(c *cobra.Command) {
	x := c.Flags()
	x.StringVar(&f.url, "url", "", "the list's address on the web")
	x.StringVar(&f.file, "file", "", "or the file that it is in")
	x.StringArrayVar(&f.topics, "topic", nil, "a topic in which it counts; may be repeated")
	x.StringVar(&f.rule, "rule", "watch", "watch, suspect or ban")
	x.StringVar(&f.format, "format", "", "lines, json, dshield, ipsum or csv (default: found out)")
	x.StringVar(&f.column, "column", "", "the CSV column or JSON key with the address (default: found out)")
	x.StringVar(&f.score, "score", "", "the CSV column or JSON key with a score")
	x.Float64Var(&f.minimum, "minimum", 0, "the least score that is taken")
	x.StringVar(&f.lasts, "for", "", "how long an entry counts after the list was confirmed (default: 48h, of a file 30d)")
	x.StringVar(&f.every, "every", "6h", "how often the list is fetched")
	x.IntVar(&f.most, "max-entries", 100_000, "how many entries count")
	x.IntVar(&f.change, "max-change", 50, "by how many percent it may change without a person")
	x.StringArrayVar(&f.prefix, "prefix", nil, "the widest prefix that is taken (default: v4/16 and v6/32)")
	x.StringArrayVar(&f.allow, "allow", nil, "let it come by http, without encryption, or from a private address")
}

func newListsAddCommand(p *paths) *cobra.Command {
	var f listFlags
	var yes bool
	c := &cobra.Command{
		Use: "add NAME", Short: "Use a public list in topics",
		Example: "  agent lists add drop --url https://www.spamhaus.org/drop/drop_v4.json --topic sshd\n" +
			"  agent lists add ssh --url https://lists.blocklist.de/lists/ssh.txt --topic sshd --every 12h\n" +
			"  agent lists add abuse --file /srv/lists/abuse.json --column ipAddress --score abuseConfidenceScore --minimum 90 --topic sshd",
		Long: `Use a list of addresses that somebody publishes, from a file of this machine or from an address on the web. The agent
fetches nothing: ` + "`agent fetch`" + ` does, by systemd's banmesh-fetch.timer, as a user of its own. The format is found out by
itself. With --rule watch (the default) an address on the list is banned at its first offence here; with --rule ban at once.
` + cli.ExitHelp,
		Args: exactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if _, err := ban.ParseImport(string(ban.ImportOf(ban.ImportList, name))); err != nil {
				return cli.Usage("%v", err)
			}
			if (f.file == "") == (f.url == "") {
				return cli.Usage("say where the list is, with either --url or --file")
			}
			if len(f.topics) == 0 {
				return cli.Usage("say with --topic where the list counts")
			}
			before, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			for _, l := range before.Lists() {
				if l.Name == name {
					return cli.Hint(fmt.Errorf("a list is named %s already", name), "`agent lists remove %s` first, or choose another name", name)
				}
			}
			written, err := p.edit(listsDropIn, func(tree map[string]any) error {
				f.write(c, config.Table(tree, "lists", name))
				return nil
			})
			if err != nil {
				return err
			}
			after, err := settings.Load(p.config, p.state)
			if err != nil {
				return errors.Join(err, written.undo())
			}
			if err := written.takeOver(c, yes); err != nil {
				return err
			}
			for _, l := range after.Lists() {
				if l.Name == name {
					printListAdded(c.OutOrStdout(), &l)
				}
			}
			x, err := p.publicList(c, name)
			if errors.Is(err, control.ErrNotRunning) {
				return nil
			}
			if err != nil {
				return err
			}
			if x.Fault == "" {
				fmt.Fprintf(c.OutOrStdout(), "%s now; %d refused: agent lists show %s\n", verb(x.Entries, "entry counts", "entries count"), x.Junk+x.Wide+x.Never, name)
			} else {
				fmt.Fprintf(c.OutOrStdout(), "nothing of it counts yet: %s\n", cli.Printable(x.Fault))
			}
			return nil
		},
	}
	f.add(c)
	yesFlag(c, &yes)
	return c
}

func printListAdded(w io.Writer, l *settings.List) {
	fmt.Fprintf(w, "%s: an address on the list is %s in %s, for %s after the list was last confirmed\n", l.Name,
		map[string]string{"watch": "watched", "suspect": "a suspect", "ban": "banned"}[l.Rule.String()], topicNames(l.Topics), span.Format(l.For))
	if l.File == "" {
		host := l.Fetch.URL
		if u, err := url.Parse(host); err == nil {
			host = u.Host
		}
		fmt.Fprintf(w, "the agent fetches nothing itself; this asks %s every %s: systemctl enable --now banmesh-fetch.timer\n", cli.Printable(host), span.Format(l.Fetch.Every))
	}
}
