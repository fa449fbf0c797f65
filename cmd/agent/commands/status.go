package commands

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/doctor"
	"banmesh/internal/federation"
)

func newStatusCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status [TOPIC]",
		Short:   "Show what the running agent watches, bans, publishes and accepts, and what is wrong with it",
		Example: "  agent status\n  agent status sshd\n  agent status --json | jq .bans",
		Long: `Show what the running agent watches, bans, publishes and accepts, and what is wrong with it. With
a topic, show what fail2ban-client shows of a jail, in the same form. Counters of logs are
those since the agent started; those of topics outlive restarts.
` + cli.ExitHelp,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly(1, "at most one topic")(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return topicStatus(c, p, args[0], asJSON)
			}
			var s control.Status
			if err := p.client().Get(c.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), s)
			}
			return printStatus(c.OutOrStdout(), s, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printStatus(w io.Writer, s control.Status, now time.Time) error {
	fmt.Fprintf(w, "agent %s, running for %s (pid %d)\n", s.Version, cli.Short(now.Sub(s.Started)), s.PID)
	fmt.Fprintf(w, "operator %s  node %s  network %s\n", s.Operator, s.Node, s.Network)
	enforcement := cli.Paint(w, cli.Good, s.Enforcement)
	if s.Enforcement == "observe" || s.Enforcement == "off" {
		enforcement = cli.Paint(w, cli.Bad, s.Enforcement)
	}
	waiting := ""
	if s.Waiting > 0 {
		waiting = fmt.Sprintf(", %s waiting", plural(s.Waiting, "claim"))
	}
	rest := fmt.Sprintf("; %s in force, %d watched%s", plural(s.Bans, "ban"), s.Watched, waiting)
	taken := len("enforcement: " + s.Enforcement)
	if s.Reason != "" {
		enforcement += " "
		rest, taken = "("+cli.Printable(s.Reason)+")"+rest, taken+1
	}
	fmt.Fprintf(w, "enforcement: %s%s\n\n", enforcement, cli.Wrap(w, taken, "   ", rest))

	if err := printTopics(w, s.Topics); err != nil {
		return err
	}
	for _, x := range s.Topics {
		for _, o := range x.Operators {
			fmt.Fprintf(w, "%s is observed: by the word of %s, %s (%d bytes) would have been dropped\n", x.Topic, cli.Printable(o.Name), plural(int(o.Packets), "packet"), o.Bytes)
		}
	}
	fmt.Fprintln(w)
	if err := printLogs(w, s.Sources, now); err != nil {
		return err
	}
	fmt.Fprintln(w)
	switch {
	case s.Broker != "":
		fmt.Fprintf(w, "embedded broker on %s\n", s.Broker)
	case len(s.Brokers) == 0:
		fmt.Fprintln(w, "no broker: nothing is published or accepted")
	}
	if err := printBrokers(w, s.Brokers, now); err != nil {
		return err
	}
	for _, x := range s.Compat {
		fmt.Fprintln(w, cli.Printable(compatLine(x, now)))
	}
	for i := range s.Lists {
		x := &s.Lists[i]
		fmt.Fprintf(w, "list %s: %s by rule %s; %s\n", x.Name, verb(x.Entries, "entry", "entries"), x.Rule, cli.Wrap(w, 8, "   ", cli.Printable(listState(x, now))))
	}
	for _, x := range s.Vallumd {
		fmt.Fprintln(w, cli.Wrap(w, 0, "   ", cli.Printable(vallumdLine(x))))
	}
	if s.Page != "" {
		fmt.Fprintf(w, "page on %s; `agent page open` signs a browser in\n", cli.Printable(s.Page))
	}
	if s.Gate != nil {
		fmt.Fprintf(w, "wallet gate: %s; allowed %d, refused %d\n", gateLine(*s.Gate, now), s.Gate.Allowed, s.Gate.Refused)
	}
	for _, x := range s.Notify {
		state, colour := receiverState(x, now)
		last := "nothing sent yet"
		if !x.LastSent.IsZero() {
			last = "last sent " + cli.Short(max(now.Sub(x.LastSent), 0)) + " ago"
		}
		fmt.Fprintf(w, "messages to %s (%s): %s, %s\n", x.Name, x.Type, cli.Paint(w, colour, state), last)
	}
	if n := len(s.Shielded); n > 0 {
		sum, last := 0, s.Shielded[0]
		for _, x := range s.Shielded {
			sum += x.Offences
		}
		fmt.Fprintf(w, "shielded: %s\n", cli.Wrap(w, 10, "   ", cli.Printable(fmt.Sprintf("%s banned nobody, the last one %s ago of %s in %s (%s)",
			plural(sum, "offence"), cli.Short(max(now.Sub(last.Last), 0)), last.Target, last.Topic, last.Entry))))
	}
	for _, x := range s.Warnings {
		c := cli.Bad
		if x.Severity == control.SeverityLow {
			c = cli.Doubt
		}
		fmt.Fprintf(w, "\n%s %s\n", cli.Paint(w, c, "warning:"), cli.Wrap(w, 9, "   ", cli.Printable(x.Text)))
		if x.Fix != "" {
			fmt.Fprintf(w, "   mend: %s\n", cli.Printable(x.Fix))
		}
	}
	return nil
}

// printTopics prints a row a topic that the node does something with.
func printTopics(w io.Writer, topics []control.TopicStatus) error {
	t := cli.NewTable(w, "TOPIC", "DETECT", "ACCEPT", "PUBLISH", "OWN", "BANS", "PACKETS", "POLICY")
	for _, x := range topics {
		t.Row(string(x.Topic), detects(x), yes(x.Subscribe), yes(x.Publish), strconv.Itoa(x.Own), strconv.Itoa(x.Bans),
			strconv.FormatUint(x.Packets, 10), x.Policy)
	}
	return t.Flush()
}

// printLogs prints a row a named log, which its topic names. Why one cannot be
// read is a warning below.
func printLogs(w io.Writer, logs []control.SourceStatus, now time.Time) error {
	t := cli.NewTable(w, "TOPIC", "READ", "MATCHED", "LAST LINE", "LOG", "IGNORED", "UNREAD")
	t.Cut("TOPIC", "LOG")
	t.Least("LOG", 24)
	for _, x := range doctor.GroupLogs(logs) {
		last := "never"
		switch {
		case x.Error != "":
			last = "cannot be read"
		case x.Found == 0:
			last = "not there"
		case !x.LastLine.IsZero():
			last = cli.Short(max(now.Sub(x.LastLine), 0)) + " ago"
		}
		t.Row(topicNames(x.Topics), strconv.FormatUint(x.Read, 10), strconv.FormatUint(x.Matched, 10), last, x.Name,
			strconv.FormatUint(x.Ignored, 10), unread(x.Backlog))
		if x.Error != "" {
			t.Paint(3, cli.Bad)
		}
	}
	return t.Flush()
}

// printBrokers prints a row a broker, and below it why it does not answer.
func printBrokers(w io.Writer, brokers []control.BrokerStatus, now time.Time) error {
	if len(brokers) == 0 {
		return nil
	}
	t := cli.NewTable(w, "BROKER", "STATE")
	t.Cut("BROKER")
	for _, x := range brokers {
		state, c := "down", cli.Bad
		switch {
		case x.Connected:
			state, c = "up for "+cli.Short(now.Sub(x.Since)), cli.Good
		case x.Health == string(federation.HealthMisbehaving):
			state = "misbehaving broker"
		}
		t.Row(x.URL, state)
		t.Paint(1, c)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range brokers {
		if x.Error != "" {
			fmt.Fprintf(w, "  %s\n", cli.Wrap(w, 2, "  ", cli.Printable(x.URL+": "+x.Error)))
		}
	}
	return nil
}

func detects(x control.TopicStatus) string {
	if x.Simulate {
		return "simulated"
	}
	return yes(x.Detect)
}

// unread says how much of a source waits, where that can be known.
func unread(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func newBansCommand(p *paths) *cobra.Command {
	var asJSON bool
	var topic, origin string
	c := &cobra.Command{
		Use:     "bans",
		Short:   "List the bans in force, whoever made them",
		Example: "  agent bans\n  agent bans --topic sshd --json\n  agent bans --origin here",
		Long:    "List the bans in force, whoever made them: \"here\", or the names of the operators whose claims carry the ban.\n" + cli.ExitHelp,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{}
			if topic != "" {
				q.Set("topic", topic)
			}
			if origin != "" {
				q.Set("origin", origin)
			}
			bans := []control.Ban{}
			if err := p.client().Get(c.Context(), "/v1/bans", q, &bans); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), bans)
			}
			return printBans(c.OutOrStdout(), bans, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&topic, "topic", "", "only this topic")
	c.Flags().StringVar(&origin, "origin", "", "only bans of this origin: here, or an operator's name")
	return c
}

func printBans(w io.Writer, bans []control.Ban, now time.Time) error {
	if len(bans) == 0 {
		fmt.Fprintln(w, "no bans in force")
		return nil
	}
	t := cli.NewTable(w, "TARGET", "TOPIC", "ENDS IN", "ORIGIN", "BASIS", "CLASS", "HITS")
	t.Cut("ORIGIN", "TOPIC")
	for _, b := range bans {
		t.Row(b.Target.String(), string(b.Topic), cli.Short(b.Until.Sub(now)), strings.Join(b.Origin, ","), b.Basis.String(), b.Class.String(),
			cmp.Or(strconv.Itoa(b.Hits), "0"))
	}
	return t.Flush()
}

// vallumdLine is the line of a private broker of vallumd's.
func vallumdLine(x control.Vallumd) string {
	state := "connected"
	if !x.Connected {
		state = "not connected (" + x.Error + ")"
	}
	line := fmt.Sprintf("%s on %s: %s", x.Name, x.URL, state)
	if len(x.Publish) > 0 {
		line += fmt.Sprintf("; its sets have %s from here", plural(x.Told, "address"))
	}
	if len(x.Accept) > 0 {
		line += fmt.Sprintf("; received %s", plural(int(x.Received), "message"))
	}
	if x.Ignored > 0 {
		line += fmt.Sprintf(", left %d out", x.Ignored)
	}
	return line
}

// compatLine is the line of a protocol of other programs: where it is spoken,
// with whom, and who was refused.
func compatLine(x control.Compat, now time.Time) string {
	var names []string
	for _, c := range x.Clients {
		name := cmp.Or(c.Name, c.From, c.Kind)
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	line := fmt.Sprintf("%s on %s: %s", x.Protocol, x.Listen, plural(len(x.Clients), "client"))
	if n := len(names); n > maxNamed {
		names = append(names[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	if len(names) > 0 {
		line += " (" + strings.Join(names, ", ") + ")"
	}
	return line + compatRefused(x.Refused, now)
}

// maxNamed bounds the clients that a line of the status names.
const maxNamed = 4

// compatRefused says how often wrong credentials were refused.
func compatRefused(x *control.CompatRefused, now time.Time) string {
	if x == nil {
		return ""
	}
	from := ""
	if x.From != "" {
		from = " from " + x.From
	}
	return fmt.Sprintf("; refused %s without valid credentials, the last%s %s ago", plural(int(min(x.Count, 1<<31-1)), "request"), from, cli.Short(max(now.Sub(x.At), 0)))
}
