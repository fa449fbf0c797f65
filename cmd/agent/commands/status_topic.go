package commands

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// topicStatus prints one topic as fail2ban-client prints a jail, so that a tool that
// reads the one reads the other.
func topicStatus(c *cobra.Command, p *paths, topic string, asJSON bool) error {
	var s control.JailStatus
	if err := p.client().Get(c.Context(), "/v1/jail", url.Values{"topic": {topic}}, &s); err != nil {
		return err
	}
	if asJSON {
		return cli.JSON(c.OutOrStdout(), s)
	}
	printTopicStatus(c.OutOrStdout(), s)
	return nil
}

func printTopicStatus(w io.Writer, s control.JailStatus) {
	fmt.Fprintf(w, "Status for the jail: %s\n", s.Topic)
	fmt.Fprintln(w, "|- Filter")
	fmt.Fprintf(w, "|  |- Currently failed:\t%d\n", s.CurrentlyFailed)
	fmt.Fprintf(w, "|  |- Total failed:\t%d\n", s.TotalFailed)
	var sources []string
	if len(s.Files) > 0 || len(s.Journal)+len(s.Other) == 0 {
		sources = append(sources, "File list:\t"+cli.Printable(strings.Join(s.Files, " ")))
	}
	if len(s.Journal) > 0 {
		sources = append(sources, "Journal matches:\t"+cli.Printable(strings.Join(s.Journal, " + ")))
	}
	if len(s.Other) > 0 {
		sources = append(sources, "Other sources:\t"+cli.Printable(strings.Join(s.Other, ", ")))
	}
	for i, text := range sources {
		corner := "|-"
		if i == len(sources)-1 {
			corner = "`-"
		}
		fmt.Fprintf(w, "|  %s %s\n", corner, text)
	}
	fmt.Fprintln(w, "`- Actions")
	fmt.Fprintf(w, "   |- Currently banned:\t%d\n", s.CurrentlyBanned)
	fmt.Fprintf(w, "   |- Total banned:\t%d\n", s.TotalBanned)
	var banned []string
	for _, t := range s.Banned {
		banned = append(banned, t.String())
	}
	fmt.Fprintf(w, "   `- Banned IP list:\t%s\n", strings.Join(banned, " "))
	if remote := s.CurrentlyBanned - s.Own; remote > 0 {
		fmt.Fprintf(w, "\nOf these, peers made %d; `agent bans --topic %s` names them.\n", remote, s.Topic)
	}
	switch {
	case s.Simulate:
		fmt.Fprintf(w, "\nThe topic is simulated: offenders are found and not banned, and the total counts bans that were not made. `agent simulate off %s` ends it.\n", s.Topic)
	case !s.Detect:
		fmt.Fprintf(w, "\nNo log is read for this topic; `agent topics detect %s` changes that.\n", s.Topic)
	}
}
