package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/detect"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/printable"
	"banmesh/internal/settings"
	"banmesh/topics"
)

// newFilterCommand holds the tools for people who write filters.
func newFilterCommand(p *paths) *cobra.Command {
	return group("filter", "Try filters on logs", newFilterTestCommand(p))
}

type filterTest struct {
	json                           bool
	now, timezone, logtype, config string
	printMatched, printMissed      bool
}

func newFilterTestCommand(p *paths) *cobra.Command {
	var o filterTest
	c := &cobra.Command{
		Use:   "test FILTER LOG",
		Short: "Try a filter on a log and show what it finds; nothing is banned",
		Long: `Try a filter on a log and show what it finds; nothing is banned and no agent is needed.

FILTER is a topic ("sshd"), or a fail2ban filter by name, with options if you like
("sshd[mode=aggressive]"), or by path ("./my-filter.conf"). A plain name that is both is the
topic's, unless --config is given. LOG is a file, "-" for standard input, or "journal".

The report is that of fail2ban-regex, and says of each expression which engine runs it, which
texts a line must hold to be tried at all, and what trying it costs.
` + cli.ExitHelp,
		Example: `  agent filter test sshd /var/log/auth.log
  agent filter test 'sshd[mode=aggressive]' journal
  agent filter test --json --now 2026-11-21T10:00:00Z ./my-filter.conf - < my.log`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c, p, args[0], args[1], c.Flags().Changed("config"))
		},
	}
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "print one JSON object for each input line")
	f.StringVar(&o.now, "now", "", "pretend that it is this `time` (RFC 3339 or seconds since 1970)")
	f.StringVar(&o.timezone, "timezone", "", "`zone` of dates that name none: Europe/Paris, CEST, UTC+0200 (default: this machine's)")
	f.StringVar(&o.logtype, "logtype", "", "lines are those of a `file` or of a journal, where dates are known")
	f.StringVar(&o.config, "config", detect.DefaultFail2banDir, "`directory` of fail2ban's configuration")
	f.BoolVar(&o.printMatched, "print-matched", false, "list the lines that match")
	f.BoolVar(&o.printMissed, "print-missed", false, "list all lines that do not match")
	return c
}

func (o *filterTest) run(c *cobra.Command, p *paths, spec, log string, fail2banOnly bool) error {
	t := detect.Trial{Spec: spec, Fail2banDir: o.config, Fail2banOnly: fail2banOnly || strings.ContainsAny(spec, "[/"), Logtype: o.logtype, Log: log, In: c.InOrStdin()}
	if o.logtype != "" && o.logtype != "file" && o.logtype != "journal" {
		return cli.Usage(`--logtype is "file" or "journal", not %q`, o.logtype)
	}
	collectRarely()
	var err error
	if t.Now, err = parseMoment(o.now); err != nil {
		return err
	}
	if t.Zone, err = parseZone(o.timezone); err != nil {
		return err
	}
	if t.Topics, err = loadTopics(p); err != nil {
		return err
	}
	out := c.OutOrStdout()
	encoder := json.NewEncoder(printable.JSONWriter(out))
	encoder.SetEscapeHTML(false)
	var matched, missed []string
	if o.json || o.printMatched || o.printMissed {
		t.Each = func(l detect.TrialLine) error {
			switch {
			case o.json:
				return encoder.Encode(l)
			case o.printMatched && (l.Matched || len(l.NoFail) > 0):
				matched = append(matched, l.Text)
			case o.printMissed && !l.Matched && !l.Ignored && !l.Skipped && len(l.NoFail) == 0:
				missed = append(missed, l.Text)
			}
			return nil
		}
	}
	r, err := t.Run(c.Context())
	if errors.Is(err, detect.ErrFilter) || errors.Is(err, f2bconf.ErrMissing) {
		return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "`agent topics list` names the topics, and " + filepath.Join(o.config, "filter.d") + " holds fail2ban's filters"}
	}
	if err != nil || o.json {
		return err
	}
	printTrial(out, r, matched, missed)
	return nil
}

// parseMoment reads RFC 3339 or seconds since 1970; "" is the zero time.
func parseMoment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return time.UnixMilli(int64(seconds * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, cli.Usage("--now: %q is neither an RFC 3339 time nor seconds since 1970", s)
	}
	return t, nil
}

// parseZone reads a zone's name in the tz database or as fail2ban writes it.
func parseZone(s string) (*time.Location, error) {
	if s == "" {
		return nil, nil
	}
	if l, err := time.LoadLocation(s); err == nil {
		return l, nil
	}
	offset, err := dates.ZoneOffset(s)
	if err != nil {
		return nil, cli.Usage("--timezone: %q is no time zone", s)
	}
	return time.FixedZone(s, offset), nil
}

// loadTopics gives the definitions as the agent uses them: shipped ones, those
// of included directories, the operator's, and agent.toml's changes. With a
// fault in agent.toml the definitions alone are given: filters can be tried
// all the same.
func loadTopics(p *paths) ([]*topics.Definition, error) {
	if s, err := settings.Load(p.config, p.state); err == nil {
		return s.Definitions(), nil
	}
	return topics.Load(filepath.Join(p.config, settings.TopicDirectory))
}

// printTrial prints the report of fail2ban-regex, and more of each expression.
func printTrial(w io.Writer, r *detect.TrialReport, matched, missed []string) {
	fmt.Fprint(w, "\nRunning tests\n=============\n\n")
	switch r.Kind {
	case "topic":
		fmt.Fprintf(w, "Use            topic : %s\n", r.Name)
	default:
		fmt.Fprintf(w, "Use   failregex filter file : %s, basedir: %s\n", r.Name, r.Dir)
	}
	fmt.Fprintf(w, "Use         maxlines : %d\n", r.MaxLines)
	if len(r.DatePattern) > 0 {
		fmt.Fprintf(w, "Use      datepattern : %s\n", strings.Join(r.DatePattern, " | "))
	}
	fmt.Fprintf(w, "Use         log file : %s\n\n\nResults\n=======\n", r.Log)
	if r.Prefix != nil {
		fmt.Fprintf(w, "\nPrefregex: %d total\n|  %s\n%s`-\n", r.Prefix.Hits, r.Prefix.Source, engine(r.Prefix))
	}
	printRules(w, "Failregex", r.Rules)
	printRules(w, "Ignoreregex", r.Ignores)
	fmt.Fprint(w, "\nDate template hits:\n")
	if len(r.DateHits) > 0 {
		fmt.Fprint(w, "|- [# of hits] date format\n")
		slices.SortStableFunc(r.DateHits, func(a, b detect.DateHit) int { return b.Hits - a.Hits })
		for _, d := range r.DateHits {
			fmt.Fprintf(w, "|  [%d] %s\n", d.Hits, d.Name)
		}
		fmt.Fprint(w, "`-\n")
	}
	fmt.Fprintf(w, "\nLines: %d lines, %d ignored, %d matched, %d missed\n", r.Lines, r.Ignored, r.Matched, r.Missed)
	fmt.Fprintf(w, "[processed in %.2f sec]\n\n", r.Elapsed.Seconds())
	printLines(w, "Matched", matched, len(matched))
	printLines(w, "Ignored", r.IgnoredLines, r.Ignored)
	if missed == nil {
		missed = r.MissedLines
	}
	printLines(w, "Missed", missed, r.Missed)
}

func printRules(w io.Writer, title string, rules []detect.RuleReport) {
	total := 0
	for i := range rules {
		total += rules[i].Hits
	}
	fmt.Fprintf(w, "\n%s: %d total\n", title, total)
	if len(rules) == 0 {
		return
	}
	fmt.Fprint(w, "|-  #) [# of hits] regular expression\n")
	for i := range rules {
		if r := &rules[i]; r.Hits > 0 || r.Timeouts > 0 {
			fmt.Fprintf(w, "|  %2d) [%d] %s\n%s", i+1, r.Hits, r.Source, engine(r))
		}
	}
	fmt.Fprint(w, "`-\n")
	const slow = 50 * time.Microsecond
	for i := range rules {
		if r := &rules[i]; r.Cost > slow || r.Timeouts > 0 {
			fmt.Fprintf(w, "   warning: expression %d is slow: %v a line, %d timeouts\n", i+1, r.Cost, r.Timeouts)
		}
	}
}

func engine(r *detect.RuleReport) string {
	literals := "none: it is tried on every line"
	if len(r.Literals) > 0 {
		quoted := make([]string, len(r.Literals))
		for i, l := range r.Literals {
			quoted[i] = strconv.Quote(l)
		}
		literals = strings.Join(quoted, " or ")
	}
	return fmt.Sprintf("|         engine %s, %v a line; needs %s\n", r.Engine, r.Cost.Round(10*time.Nanosecond), literals)
}

func printLines(w io.Writer, title string, lines []string, total int) {
	if total == 0 || len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "|- %s line(s):\n", title)
	for _, l := range lines {
		fmt.Fprintf(w, "|  %s\n", cli.Printable(l))
	}
	if more := total - len(lines); more > 0 {
		fmt.Fprintf(w, "|  ... and %d more\n", more)
	}
	fmt.Fprint(w, "`-\n")
}
