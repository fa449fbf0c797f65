package commands

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// newExplainLineCommand says why a line is an offence or none.
func newExplainLineCommand(p *paths) *cobra.Command {
	var (
		asJSON, all bool
		only        []string
		tag         string
	)
	c := &cobra.Command{
		Use:   "explain-line LINE",
		Short: "Say what each topic makes of one log line, and why",
		Long: `Say what each topic makes of one log line, and why: which rule matches, who the offender is,
what it takes for a ban; or what kept the line from being an offence. It works without a
running agent. LINE "-" reads one line from standard input.
` + cli.ExitHelp,
		Example: `  agent explain-line 'Nov 21 09:14:02 web1 sshd[471]: Failed password for root from 192.0.2.7 port 51234 ssh2'
  agent explain-line --tag sshd 'Failed password for root from 192.0.2.7 port 51234 ssh2'`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			line := args[0]
			if line == "-" {
				var err error
				if line, err = bufio.NewReader(io.LimitReader(c.InOrStdin(), source.MaxLine)).ReadString('\n'); err != nil && err != io.EOF {
					return err
				}
			}
			jails, err := detectingTopics(p, only)
			if err != nil {
				return err
			}
			found, err := detect.Explain(detect.Options{Jails: jails}, []byte(strings.TrimRight(line, "\r\n")), tag != "", tag)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), found)
			}
			printExplanations(c.OutOrStdout(), found, all || len(only) > 0)
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&all, "all", false, "also name topics that the line is nothing to")
	f.StringSliceVar(&only, "topic", nil, "ask these `topics` only")
	f.StringVar(&tag, "tag", "", "the line is a journal's message by this `program`")
	return c
}

// detectingTopics gives the topics that can find offenders, or those named.
func detectingTopics(p *paths, only []string) ([]detect.Jail, error) {
	all, err := loadTopics(p)
	if err != nil {
		return nil, err
	}
	var jails []detect.Jail
	for _, d := range all {
		if d.Detect != nil && (len(only) == 0 && d.Detect.Fail2ban == "" || slices.Contains(only, string(d.Name))) {
			jails = append(jails, detect.Jail{Definition: d})
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(all, func(d *topics.Definition) bool { return d.Name == ban.Topic(name) && d.Detect != nil }) {
			return nil, cli.Usage("no topic %q that finds offenders", name)
		}
	}
	return jails, nil
}

func printExplanations(w io.Writer, list []detect.Explanation, all bool) {
	shown := 0
	for _, e := range list {
		if !all && (e.Reached == "no required text" || e.Reached == "prefregex does not match") {
			continue
		}
		shown++
		fmt.Fprintf(w, "%s: %s\n", e.Topic, verdictText(e))
		if e.Rule > 0 {
			fmt.Fprintf(w, "  rule %d   %s\n", e.Rule, cli.Printable(e.Regex))
		}
		if !e.Time.IsZero() {
			fmt.Fprintf(w, "  written  %s\n", e.Time.Format(time.RFC3339))
		}
		if e.Rest != "" {
			fmt.Fprintf(w, "  filters see %q\n", e.Rest)
		}
		for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
			fmt.Fprintf(w, "  %-8s %s\n", k, cli.Printable(e.Fields[k]))
		}
		if e.Reached == "offence" {
			fmt.Fprintf(w, "  counts   %g of %d within %s, then banned for %s\n", e.Weight, e.MaxRetry, e.FindTime, e.BanTime)
			if !e.Corroborate.IsZero() {
				fmt.Fprintf(w, "  believed only if the kernel saw the address finish a handshake with the topic's ports within %s\n", e.Corroborate)
			}
		}
	}
	if shown == 0 {
		fmt.Fprintln(w, "No topic knows this line.")
	}
}

func verdictText(e detect.Explanation) string {
	switch e.Reached {
	case "offence":
		return fmt.Sprintf("an offence (%s) of %s", e.Class, e.Target)
	case "ignored address":
		return fmt.Sprintf("an offence (%s), but %s is on an ignore list", e.Class, e.Target)
	case "nobody to ban":
		return fmt.Sprintf("matches, but %q is no address", cli.Printable(e.ID))
	case "no offence":
		return "known, and no offence of its own"
	}
	return e.Reached
}
