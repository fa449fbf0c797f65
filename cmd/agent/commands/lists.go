package commands

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
)

// listsDropIn is the drop-in file of these commands.
const listsDropIn = "lists"

func newListsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "lists", Short: "Use public lists of addresses, such as Spamhaus DROP, and see of what use they were",
		Example: "  agent lists\n" +
			"  agent lists add drop --url https://www.spamhaus.org/drop/drop_v4.json --topic sshd\n" +
			"  agent lists show drop\n  agent lists approve drop",
		Long: `List the public lists of addresses that count here. A list has a rule of its own: the addresses on it are watched (their
first offence here bans them) unless it says "ban". It bans no guest and nothing that is never banned, nothing of it is
published, and an edition that changed too much at once waits for ` + "`agent lists approve`" + `. Formats, limits and the
service that fetches: docs/compat/lists.md.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list := []control.PublicList{}
			if err := p.client().Get(c.Context(), "/v1/lists", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no list is used: agent lists add NAME --url URL --topic TOPIC")
				return nil
			}
			return printLists(c.OutOrStdout(), list, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(newListsAddCommand(p), newListsShowCommand(p), newListsApproveCommand(p), newListsRemoveCommand(p))
	return c
}

func printLists(w io.Writer, list []control.PublicList, now time.Time) error {
	t := cli.NewTable(w, "LIST", "RULE", "ENTRIES", "REFUSED", "AGE", "ENDS", "MET", "WRONG", "STATE")
	for i := range list {
		x := &list[i]
		age, ends := "-", "-"
		if !x.Confirmed.IsZero() {
			age = cli.Short(max(now.Sub(x.Confirmed).Truncate(time.Second), 0))
		}
		if x.Ends.After(now) {
			ends = "in " + cli.Short(x.Ends.Sub(now))
		}
		t.Row(x.Name, x.Rule, strconv.Itoa(x.Entries), strconv.Itoa(x.Junk+x.Wide+x.Never), age, ends, strconv.Itoa(x.Met), strconv.Itoa(x.Guests+x.Overruled+x.Disputed), listState(x, now))
		if x.Held != nil || x.Fault != "" || x.Quarantine != nil || !x.Ends.After(now) {
			t.Paint(8, cli.Doubt)
		}
	}
	return t.Flush()
}

// listState says in few words how a list stands, its gravest trouble first.
func listState(x *control.PublicList, now time.Time) string {
	switch {
	case x.Quarantine != nil:
		return "quarantined"
	case x.Held != nil:
		return "waits: " + x.Held.Why
	case x.Taken.IsZero() && x.Fault == "":
		return "is about to be read"
	case x.Taken.IsZero():
		return x.Fault
	case !x.Ends.After(now):
		return "has ended"
	case x.Fault != "":
		return x.Fault
	}
	state := "counts"
	if x.Withdrawn > 0 {
		state += fmt.Sprintf(", but for %d withdrawn here", x.Withdrawn)
	}
	if x.Beyond > 0 {
		state += fmt.Sprintf(", %d more are beyond max_entries", x.Beyond)
	}
	return state
}

func newListsShowCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show NAME", Short: "Show one list: its edition, the entries that were refused, its use here",
		Example: "  agent lists show drop",
		Long:    "Show one list: which edition of it counts and until when, which entries were refused, which edition waits, and of what use it was.\n" + cli.ExitHelp,
		Args:    exactly(1, "a list's name"),
		RunE: func(c *cobra.Command, args []string) error {
			x, err := p.publicList(c, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), x)
			}
			printList(c.OutOrStdout(), x, time.Now())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// publicList asks the agent for a list.
func (p *paths) publicList(c *cobra.Command, name string) (*control.PublicList, error) {
	list := []control.PublicList{}
	if err := p.client().Get(c.Context(), "/v1/lists", nil, &list); err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i], nil
		}
	}
	return nil, cli.Hint(fmt.Errorf("no list is named %q", name), "see `agent lists`")
}

func printList(w io.Writer, x *control.PublicList, now time.Time) {
	line := func(head, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", head, cli.Wrap(w, 11, strings.Repeat(" ", 11), cli.Printable(fmt.Sprintf(format, args...))))
	}
	from := x.URL
	if x.File != "" {
		from = x.File
	}
	line("list", "%s, from %s", x.Name, from)
	line("rule", "%s in %s", x.Rule, topicNames(x.Topics))
	if x.Taken.IsZero() {
		line("edition", "none was taken yet")
	} else {
		line("edition", "%s (%s), taken %s, confirmed %s", verb(x.Entries, "entry", "entries"), x.Format, clock(x.Taken), clock(x.Confirmed))
		if x.Ends.After(now) {
			line("ends", "%s, unless it is confirmed before", clock(x.Ends))
		} else {
			line("ends", "it has ended, %s", clock(x.Ends))
		}
		line("left out", "%d no address, %d too wide, %d never to be banned, %d below the minimum, %d repeated, %d beyond the number of entries", x.Junk, x.Wide, x.Never, x.Low, x.Repeated, x.Beyond)
		for _, r := range x.Refused {
			line("", "%s: %s", r.Text, r.Why)
		}
	}
	line("use here", "%s met, of whom it had warned; part of %s in force", plural(x.Met, "offender"), plural(x.Banning, "ban"))
	line("wrong", "%s of guests here, %d unbanned by a person, %d disputed", verb(x.Guests, "entry", "entries"), x.Overruled, x.Disputed)
	if x.Withdrawn > 0 {
		line("withdrawn", "%s of it here, which count for nothing", verb(x.Withdrawn, "claim", "claims"))
	}
	if x.Quarantine != nil {
		line("quarantine", "nothing of it counts: %s", x.Quarantine.Why)
	}
	if x.Fault != "" {
		line("fault", "%s", x.Fault)
	}
	if h := x.Held; h != nil {
		line("waits", "a newer edition: %s", h.Why)
		line("", "%d new, such as %s; %d gone", h.Added, strings.Join(h.Sample, " "), h.Gone)
		fmt.Fprintf(w, "\nagent lists approve %s\n", x.Name)
	}
}

func newListsApproveCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "approve NAME", Short: "Let the edition count that waits because it changed too much",
		Example: "  agent lists approve drop",
		Long: `Show how the newest edition of a list differs from the one that counts, ask, and let it count. It is the edition that
was shown: one that comes meanwhile waits again.
` + cli.ExitHelp,
		Args: exactly(1, "a list's name"),
		RunE: func(c *cobra.Command, args []string) error {
			x, err := p.publicList(c, args[0])
			if err != nil {
				return err
			}
			if x.Held == nil {
				return cli.Hint(fmt.Errorf("no edition of the list %s waits", x.Name), "see `agent lists show %s`", x.Name)
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%s: %s; %d new, %d gone\n", x.Name, cli.Printable(x.Held.Why), x.Held.Added, x.Held.Gone)
			if !yes {
				if err := ask(c, fmt.Sprintf("this lets %s count", verb(x.Held.After, "entry", "entries"))); err != nil {
					return err
				}
			}
			var now control.PublicList
			if err := p.client().Post(c.Context(), "/v1/lists/approve", control.ListApproval{Name: x.Name, Sum: x.Held.Sum}, &now); err != nil {
				return err
			}
			fmt.Fprintf(w, "%s of the list %s now\n", verb(now.Entries, "entry counts", "entries count"), x.Name)
			printKernelLags(w, now.Fault)
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}

func newListsRemoveCommand(p *paths) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Stop using a public list",
		Example: "  agent lists remove drop",
		Long:    "Stop using a public list: all that it says ends at once. Bans that rest on an offence here stay.\n" + cli.ExitHelp,
		Args:    exactly(1, "a list's name"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			written, err := p.edit(listsDropIn, func(tree map[string]any) error {
				all := config.Table(tree, "lists")
				if _, ok := all[name]; !ok {
					return errNotOurs
				}
				delete(all, name)
				config.Prune(tree)
				return nil
			})
			if errors.Is(err, errNotOurs) {
				return cli.Hint(fmt.Errorf("no list %q was added by this command", name), "see `agent lists`; what you wrote into agent.toml, you remove there")
			}
			if err != nil {
				return err
			}
			if err := written.takeOver(c, yes); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "the list %s is no longer used\n", name)
			return nil
		},
	}
	yesFlag(c, &yes)
	return c
}
