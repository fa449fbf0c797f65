package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/printable"
	"banmesh/internal/siem"
	"banmesh/internal/span"
)

// eventFilter are the flags that select events.
type eventFilter struct {
	topic, peer string
	kinds       []string
	last        string
	limit       int
}

func (f *eventFilter) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.topic, "topic", "", "only this topic")
	c.Flags().StringVar(&f.peer, "peer", "", "only events that rest on this operator or are about it")
	c.Flags().StringSliceVar(&f.kinds, "kind", nil, "only these kinds: "+kindNames())
	c.Flags().StringVar(&f.last, "last", "", "only so long ago or less, such as 24h")
}

func kindNames() string {
	var names []string
	for _, k := range history.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// query gives the parameters of a request.
func (f *eventFilter) query(args []string, now time.Time) (url.Values, error) {
	v := url.Values{}
	if len(args) == 1 {
		t, err := parseTarget(args[0])
		if err != nil {
			return nil, err
		}
		v.Set("target", t.String())
	}
	for name, value := range map[string]string{"topic": f.topic, "peer": f.peer} {
		if value != "" {
			v.Set(name, value)
		}
	}
	v["kind"] = f.kinds
	if f.last != "" {
		d, err := span.Parse(f.last)
		if err != nil || d <= 0 {
			return nil, cli.Usage("--last: %q is no length of time", f.last)
		}
		v.Set("since", now.Add(-d).UTC().Format(time.RFC3339))
	}
	if f.limit > 0 {
		v.Set("limit", strconv.Itoa(f.limit))
	}
	return v, nil
}

func newHistoryCommand(p *paths) *cobra.Command {
	var f eventFilter
	var asJSON bool
	c := &cobra.Command{
		Use: "history [TARGET]", Short: "What happened here: bans and how they ended, decisions, peers, configurations",
		Example: "  agent history\n  agent history 203.0.113.7\n  agent history --last 24h --topic sshd --kind ban,end\n  agent history --peer alice --json",
		Long: `Say what happened on this node, the newest last: every ban with who, why and the log line, and how it ended; offenders
who were not banned; what a person decided; holds, strikes, quarantines and disputes of peers; changes of the
configuration. A prefix shows what is inside it and around it. Events are kept for 90 days, or the newest 384 MB of
them. They stay on this node. Without a running agent the answer comes from its files.
` + cli.ExitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q, err := f.query(args, time.Now())
			if err != nil {
				return err
			}
			var page control.EventPage
			err = p.client().Get(c.Context(), "/v1/history", q, &page)
			if errors.Is(err, control.ErrNotRunning) {
				page, err = agent.HistoryOffline(p.state, q)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), page)
			}
			printHistory(c.OutOrStdout(), page)
			return nil
		},
	}
	f.flags(c)
	c.Flags().IntVar(&f.limit, "limit", history.DefaultLimit, fmt.Sprintf("how many events at most, up to %d", history.MaxLimit))
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, the newest first")
	return c
}

func printHistory(w io.Writer, page control.EventPage) {
	for _, e := range slices.Backward(page.Events) {
		printEvent(w, e)
	}
	switch {
	case len(page.Events) == 0 && page.Kept == 0:
		fmt.Fprintln(w, "nothing is kept yet")
	case len(page.Events) == 0:
		fmt.Fprintf(w, "nothing of that since %s; %s kept\n", clock(page.Oldest), plural(page.Kept, "event"))
	case page.More:
		fmt.Fprintf(w, "these are the newest %d; --limit shows more\n", len(page.Events))
	}
}

// printEvent prints an event in one line, and its reason and evidence below.
func printEvent(w io.Writer, e control.Event) {
	const indent = "    "
	head := fmt.Sprintf("%s %-10s", e.At.Local().Format(time.DateTime), e.Kind)
	var parts []string
	if !e.Target.IsZero() {
		parts = append(parts, e.Target.String())
	}
	if e.Topic != "" {
		parts = append(parts, "in "+string(e.Topic))
	}
	if !e.Until.IsZero() && e.Kind != string(history.End) {
		parts = append(parts, "until "+e.Until.Local().Format(time.DateTime))
	}
	if e.By != "" {
		parts = append(parts, "by "+e.By)
	}
	if len(e.Peers) > 0 && !slices.Equal(e.Peers, []string{e.By}) {
		parts = append(parts, "of "+strings.Join(e.Peers, ", "))
	}
	if e.Count > 0 {
		parts = append(parts, fmt.Sprintf("(%d)", e.Count))
	}
	fmt.Fprintf(w, "%s %s\n", head, cli.Wrap(w, len(head)+1, indent, cli.Printable(strings.Join(parts, " "))))
	if e.Why != "" {
		fmt.Fprintf(w, "%s%s\n", indent, cli.Wrap(w, len(indent), indent, cli.Printable(e.Why)))
	}
	if e.Sample == "" {
		return
	}
	from := []string{e.Source}
	if !e.First.IsZero() {
		from = append(from, "since "+e.First.Local().Format(time.DateTime))
	}
	if e.Port != 0 {
		from = append(from, fmt.Sprintf("from port %d", e.Port))
	}
	fmt.Fprintf(w, "%s%s\n", indent, cli.Printable(strings.Join(from, ", ")))
	fmt.Fprintf(w, "%s%s\n", indent, cli.Printable(e.Sample))
}

// askAgain is how often an agent is looked for that answers no longer.
const askAgain = time.Second

func newEventsCommand(p *paths) *cobra.Command {
	var f eventFilter
	var asJSON, follow, lines bool
	var format string
	var after uint64
	var count int
	c := &cobra.Command{
		Use: "events [TARGET]", Short: "Follow what happens here, for people and for programs",
		Example: "  agent events -f\n  agent events -f --json --after 1865470566400001 | siem-forwarder\n  agent events --kind ban,end --last 1h",
		Long: `Print events in the order in which they happened, oldest first; -f goes on with those to come. --json prints an object
a line, for programs. Each has a cursor: one that stores the last cursor and starts again with --after misses
nothing that is still kept, and is told on standard error where something is not.

--format writes for collectors of logs: ecs is JSON of the Elastic Common Schema, rfc5424 is syslog's; event.sequence and
cursor are the cursors. Both leave log lines and the logs' names out, which may name users; --lines has them in.
` + cli.ExitHelp,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q, err := f.query(args, time.Now())
			if err != nil {
				return err
			}
			if after != 0 {
				q.Set("after", strconv.FormatUint(after, 10))
			} else if follow && f.last == "" {
				// From now on: nobody means the last 90 days.
				var now control.EventPage
				if err := p.client().Get(c.Context(), "/v1/history", url.Values{"limit": {"1"}}, &now); err != nil {
					return err
				}
				q.Set("after", strconv.FormatUint(now.Next, 10))
			}
			write, err := eventWriter(c.OutOrStdout(), asJSON, format, lines)
			if err != nil {
				return err
			}
			return followEvents(c, p, q, follow, write, count)
		},
	}
	f.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the events to come")
	c.Flags().BoolVar(&asJSON, "json", false, "print an object a line")
	c.Flags().StringVar(&format, "format", "", "write for a collector of logs: "+strings.Join(siem.Formats(), " or "))
	c.Flags().BoolVar(&lines, "lines", false, "with --format: log lines, too")
	c.Flags().Uint64Var(&after, "after", 0, "only events behind this cursor")
	c.Flags().IntVar(&count, "count", 0, "stop after so many events")
	return c
}

// eventWriter gives the function that writes an event in the way that was asked
// for.
func eventWriter(w io.Writer, asJSON bool, format string, lines bool) (func(control.Event) error, error) {
	switch {
	case asJSON && format != "", lines && format == "":
		return nil, cli.Usage("--json is one format, --format names another, and --lines belongs to --format")
	case format != "" && !slices.Contains(siem.Formats(), format):
		return nil, cli.Usage("--format: %q is neither %s", format, strings.Join(siem.Formats(), " nor "))
	case format != "":
		out := printable.JSONWriter(w)
		if format == string(siem.Syslog) {
			out = w // it has no character that steers a terminal
		}
		return func(e control.Event) error {
			b, err := siem.Format(format).Line(e, lines)
			if err == nil {
				_, err = out.Write(append(b, '\n'))
			}
			return err
		}, nil
	case asJSON:
		out := json.NewEncoder(printable.JSONWriter(w))
		out.SetEscapeHTML(false)
		return func(e control.Event) error { return out.Encode(e) }, nil
	}
	return func(e control.Event) error { printEvent(w, e); return nil }, nil
}

// followEvents prints page after page. An agent that is restarted meanwhile is
// waited for.
func followEvents(c *cobra.Command, p *paths, q url.Values, follow bool, write func(control.Event) error, count int) error {
	printed, heard := 0, false
	for c.Context().Err() == nil {
		if follow {
			q.Set("wait", "30")
		}
		var page control.EventPage
		if err := p.client().Get(c.Context(), "/v1/events", q, &page); err != nil {
			if !follow || !heard {
				return err
			}
			select {
			case <-c.Context().Done():
				return nil
			case <-time.After(askAgain):
			}
			continue
		}
		heard = true
		if page.Missed {
			fmt.Fprintf(c.ErrOrStderr(), "agent: warning: events behind cursor %s are no longer kept; the oldest one is of %s\n", q.Get("after"), clock(page.Oldest))
		}
		for _, e := range page.Events {
			if err := write(e); err != nil {
				return err
			}
			if printed++; printed == count {
				return nil
			}
		}
		q.Set("after", strconv.FormatUint(page.Next, 10))
		if !follow && !page.More {
			return nil
		}
	}
	return nil
}
