package commands

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/span"
	"banmesh/internal/top"
)

// leastRefresh bounds how often the screen may ask the agent.
const leastRefresh = 500 * time.Millisecond

func newTopCommand(p *paths) *cobra.Command {
	every := "2s"
	c := &cobra.Command{
		Use: "top", Short: "Show the node live on the terminal: bans, peers, holds, events, warnings",
		Example: "  agent top\n  agent top --every 10s\n  ssh -t host agent top",
		Long: `Show the node live: bans in force, peers and of which use they were, claims that wait, topics, logs, events, warnings; what
agent status, bans, peers, hold list and history say. Enter explains the selected target, u lifts its ban after a question, s
sorts, / searches, ? lists the keys, q quits. It needs a terminal of at least 40 columns and 10 lines that can move its
cursor, here or over ssh -t; NO_COLOR=1 leaves colours out.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := span.Parse(every)
			if err != nil || d < leastRefresh || d > time.Hour {
				return cli.Usage("--every: %q is no length of time from 0.5s to 1h", every)
			}
			if t := os.Getenv("TERM"); t == "dumb" || t == "" {
				return cli.Hint(fmt.Errorf("the terminal (TERM=%s) cannot move its cursor, so there is no live screen", t), "agent status, agent bans, agent events -f")
			}
			if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
				return cli.Hint(errors.New("there is no terminal to show a live screen on"), "ssh -t; in a script: agent status --json")
			}
			o := topScreen(p)
			o.Every, o.Painted = d, os.Getenv("NO_COLOR") == ""
			var s control.Status
			if err := p.client().Get(c.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			return top.Run(c.Context(), o, os.Stdin, os.Stdout)
		},
	}
	c.Flags().StringVar(&every, "every", every, "how often the agent is asked")
	return c
}

// topScreen gives the functions of the screen: they ask the agent as the other
// commands do, and print as they print.
func topScreen(p *paths) top.Options {
	get := func(ctx context.Context, path string, q url.Values, into any) error {
		return p.client().Get(ctx, path, q, into)
	}
	status := func(ctx context.Context) (s control.Status, err error) { return s, get(ctx, "/v1/status", nil, &s) }
	return top.Options{
		Head: func(ctx context.Context, width int) ([]string, error) {
			s, err := status(ctx)
			return topHead(s, time.Now()), err
		},
		Lists: []top.List{
			{Name: "bans", Sorts: []string{"end", "target", "topic", "origin", "hits"}, Load: func(ctx context.Context, sort, search string) (top.Rows, error) {
				var list []control.Ban
				err := get(ctx, "/v1/bans", nil, &list)
				return banRows(list, sort, search, time.Now()), err
			}},
			{Name: "peers", Sorts: []string{"met here", "banning", "claims", "strikes", "name"}, Load: func(ctx context.Context, sort, search string) (top.Rows, error) {
				var list []control.Peer
				err := get(ctx, "/v1/peers", nil, &list)
				return peerRows(list, sort, search, time.Now()), err
			}},
			{Name: "holds", Load: func(ctx context.Context, _, search string) (top.Rows, error) {
				var list []control.Hold
				err := get(ctx, "/v1/hold", nil, &list)
				return textRows(search, func(w io.Writer) error { return printHolds(w, list) }, len(list)), err
			}},
			{Name: "topics", Load: func(ctx context.Context, _, search string) (top.Rows, error) {
				s, err := status(ctx)
				return textRows(search, func(w io.Writer) error { return printTopics(w, s.Topics) }, len(s.Topics)), err
			}},
			{Name: "logs", Load: func(ctx context.Context, _, search string) (top.Rows, error) {
				s, err := status(ctx)
				return textRows(search, func(w io.Writer) error { return printLogs(w, s.Sources, time.Now()) }, len(s.Sources)), err
			}},
			{Name: "events", Load: func(ctx context.Context, _, search string) (top.Rows, error) {
				var page control.EventPage
				err := get(ctx, "/v1/history", url.Values{"limit": {"500"}}, &page)
				return eventRows(page.Events, search), err
			}},
			{Name: "warnings", Load: func(ctx context.Context, _, search string) (top.Rows, error) {
				s, err := status(ctx)
				return warningRows(s.Warnings, search), err
			}},
		},
		Explain: func(ctx context.Context, target string, width int) (string, error) {
			var e control.Explanation
			if err := get(ctx, "/v1/explain", url.Values{"target": {target}}, &e); err != nil {
				return "", err
			}
			p.addOwnNotes(&e)
			return printed(width, func(w io.Writer) error { printExplanation(w, e, time.Now()); return nil }), nil
		},
		Unban: func(ctx context.Context, text string, sure bool) (string, error) {
			t, err := ban.ParseTarget(text)
			if err != nil {
				return "", err
			}
			var a control.UnbanAnswer
			err = p.client().Post(ctx, "/v1/unban", control.UnbanRequest{Target: t, Yes: sure}, &a)
			if r, ok := errors.AsType[*control.RefusedError](err); ok && r.Code == control.CodeAsk {
				return "", &top.AskError{Question: r.Text + ". Go on?"}
			}
			if err != nil {
				return "", err
			}
			said := printed(1000, func(w io.Writer) error { printUnbanned(w, a, []ban.Target{t}, ""); return nil })
			return strings.Join(strings.Split(strings.TrimSpace(said), "\n"), "; "), nil
		},
	}
}

// topHead gives the lines above every list.
func topHead(s control.Status, now time.Time) []string {
	up := 0
	for _, b := range s.Brokers {
		if b.Connected {
			up++
		}
	}
	second := fmt.Sprintf("%s, %d watched, %d waiting; %d of %s connected", plural(s.Bans, "ban"), s.Watched, s.Waiting, up, plural(len(s.Brokers), "broker"))
	if n := len(s.Warnings); n > 0 {
		second += "; " + plural(n, "warning")
	}
	return []string{fmt.Sprintf("agent %s, up %s, enforcement %s   %s", s.Version, cli.Short(max(now.Sub(s.Started), 0)), s.Enforcement, now.Format(time.TimeOnly)), second}
}

// printed gives the output of a printer on a screen of a width.
func printed(width int, print func(io.Writer) error) string {
	var b bytes.Buffer
	_ = print(cli.Narrow(&b, width)) // a buffer takes everything
	return b.String()
}

// split parts the heading of a table from its rows.
func split(text string) (heading string, rows []string) {
	heading, rest, _ := strings.Cut(strings.TrimRight(text, "\n"), "\n")
	if rest == "" {
		return heading, nil
	}
	return heading, strings.Split(rest, "\n")
}

func banRows(list []control.Ban, sort, search string, now time.Time) top.Rows {
	list = slices.DeleteFunc(list, func(b control.Ban) bool {
		return !strings.Contains(b.Target.String()+" "+string(b.Topic)+" "+strings.Join(b.Origin, ","), search)
	})
	slices.SortStableFunc(list, func(a, b control.Ban) int {
		by := map[string]int{}
		switch sort {
		case "end":
			by[sort] = a.Until.Compare(b.Until)
		case "topic":
			by[sort] = cmp.Compare(a.Topic, b.Topic)
		case "origin":
			by[sort] = slices.Compare(a.Origin, b.Origin)
		case "hits":
			by[sort] = cmp.Compare(b.Hits, a.Hits)
		}
		return cmp.Or(by[sort], a.Target.Compare(b.Target))
	})
	return top.Rows{
		Count: len(list), Target: func(i int) string { return list[i].Target.String() },
		Print: func(from, to, width int) (string, []string) {
			if from == to {
				return "no bans", nil
			}
			heading, rows := split(printed(width, func(w io.Writer) error { return printBans(w, list[from:to], now) }))
			return heading, rows[:min(len(rows), to-from)] // a line that names columns left out may follow
		},
	}
}

func peerRows(list []control.Peer, sort, search string, now time.Time) top.Rows {
	list = slices.DeleteFunc(list, func(x control.Peer) bool { return !strings.Contains(x.Name, search) })
	count := map[string]func(control.Peer) int{
		"met here": func(x control.Peer) int { return x.Met }, "banning": func(x control.Peer) int { return x.Banning },
		"claims": func(x control.Peer) int { return x.Claims }, "strikes": func(x control.Peer) int { return x.Total },
	}[sort]
	slices.SortStableFunc(list, func(a, b control.Peer) int {
		if count != nil {
			if n := cmp.Compare(count(b), count(a)); n != 0 {
				return n
			}
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return top.Rows{
		Count: len(list), Detail: func(i, width int) string {
			return printed(width, func(w io.Writer) error { printPeer(w, list[i], now); return nil })
		},
		Print: func(from, to, width int) (string, []string) {
			if from == to {
				return "no peers", nil
			}
			heading, rows := split(printed(width, func(w io.Writer) error { return printPeers(w, list[from:to], now) }))
			return heading, rows[:min(len(rows), to-from)]
		},
	}
}

// textRows gives the rows that a printer prints below a heading, for lists that
// are short. Detail is the row without the end of the line.
func textRows(search string, print func(io.Writer) error, count int) top.Rows {
	matching := func(width int) (heading string, rows []string) {
		if count == 0 {
			return "nothing", nil
		}
		heading, rows = split(printed(width, print))
		rows = rows[:min(len(rows), count)]
		return heading, slices.DeleteFunc(rows, func(r string) bool { return !strings.Contains(r, search) })
	}
	_, all := matching(1000)
	return top.Rows{
		Count:  len(all),
		Detail: func(i, _ int) string { return all[i] },
		Print: func(from, to, width int) (string, []string) {
			heading, rows := matching(width)
			return heading, rows[min(from, len(rows)):min(to, len(rows))]
		},
	}
}

func eventRows(list []control.Event, search string) top.Rows {
	line := func(e control.Event) string {
		parts := []string{e.At.Local().Format("01-02 15:04:05"), fmt.Sprintf("%-10s", e.Kind)}
		if !e.Target.IsZero() {
			parts = append(parts, e.Target.String())
		}
		if e.Topic != "" {
			parts = append(parts, "in "+string(e.Topic))
		}
		if e.By != "" {
			parts = append(parts, "by "+e.By)
		}
		if e.Count > 0 {
			parts = append(parts, "("+strconv.Itoa(e.Count)+")")
		}
		return cli.Printable(strings.Join(append(parts, e.Why), " "))
	}
	list = slices.DeleteFunc(list, func(e control.Event) bool { return !strings.Contains(line(e), search) })
	return top.Rows{
		Count: len(list),
		Target: func(i int) string {
			if list[i].Target.IsZero() {
				return ""
			}
			return list[i].Target.String()
		},
		Detail: func(i, width int) string {
			return printed(width, func(w io.Writer) error { printEvent(w, list[i]); return nil })
		},
		Print: func(from, to, _ int) (string, []string) {
			var rows []string
			for _, e := range list[from:to] {
				rows = append(rows, line(e))
			}
			return "TIME           KIND       EVENT", rows
		},
	}
}

func warningRows(list []control.Warning, search string) top.Rows {
	list = slices.DeleteFunc(list, func(x control.Warning) bool { return !strings.Contains(x.Code+" "+x.Text, search) })
	return top.Rows{
		Count: len(list),
		Detail: func(i, width int) string {
			return printed(width, func(w io.Writer) error {
				fmt.Fprintf(w, "%s\n\n%s\n\nmend: %s\n", cli.Wrap(w, 0, "", cli.Printable(list[i].Title)), cli.Wrap(w, 0, "", cli.Printable(list[i].Text)), cli.Printable(list[i].Fix))
				return nil
			})
		},
		Print: func(from, to, _ int) (string, []string) {
			if from == to {
				return "no warnings", nil
			}
			var rows []string
			for _, x := range list[from:to] {
				rows = append(rows, fmt.Sprintf("%-5s %-18s %s", x.Severity, x.Code, cli.Printable(x.Text)))
			}
			return "GRADE CODE               WARNING", rows
		},
	}
}
