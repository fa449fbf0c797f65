package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newBouncersCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "bouncers", Short: "List the CrowdSec bouncers that enforce this node's bans, and give them keys",
		Example: "  agent bouncers\n  agent bouncers add nginx --topic nginx\n  agent bouncers remove nginx",
		Long: `List the programs that have a key: CrowdSec's bouncers for nginx, Traefik, Caddy, firewalls, clouds and the like, which
enforce this node's bans once they know its address and their key. [lapi] listen = "127.0.0.1:8080" in agent.toml turns
the interface on.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list := []control.Bouncer{}
			if err := p.client().Get(c.Context(), "/v1/bouncers", nil, &list); err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "no bouncer has a key: agent bouncers add NAME")
				return nil
			}
			return printBouncers(c, list, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(newBouncersAddCommand(p), newBouncersRemoveCommand(p))
	return c
}

func printBouncers(c *cobra.Command, list []control.Bouncer, now time.Time) error {
	t := cli.NewTable(c.OutOrStdout(), "BOUNCER", "FROM", "ASKED", "TOLD", "REFUSED", "TOPICS", "PROGRAM")
	var warnings []string
	for _, b := range list {
		topics := "all"
		if len(b.Topics) > 0 {
			topics = topicNames(b.Topics)
		}
		if len(b.Clients) == 0 {
			t.Row(b.Name, "-", "never", "-", "-", topics, "-")
		}
		for _, x := range b.Clients {
			from := x.From
			if from == "" {
				from = "socket"
			}
			t.Row(b.Name, from, cli.Short(now.Sub(x.Last))+" ago", fmt.Sprint(x.Told), fmt.Sprint(x.Requests+x.Packets), topics, cli.Printable(strings.TrimSpace(x.Kind+" "+x.Version)))
			if x.Warning != "" {
				warnings = append(warnings, b.Name+": "+cli.Printable(x.Kind)+" "+x.Warning)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(c.OutOrStdout(), "note: "+w)
	}
	return nil
}

func topicNames(topics []ban.Topic) string {
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, string(t))
	}
	return strings.Join(names, ",")
}

func newBouncersAddCommand(p *paths) *cobra.Command {
	var topics []string
	c := &cobra.Command{
		Use: "add NAME", Short: "Give a bouncer a key, printed this once",
		Example: "  agent bouncers add nginx\n  agent bouncers add edge --topic nginx --topic web-probe",
		Long:    "Give a bouncer a key. It is printed this once; the agent keeps its hash. With topics it is told the bans of those alone.\n" + cli.ExitHelp,
		Args:    exactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			q := control.BouncerRequest{Name: args[0]}
			for _, t := range topics {
				topic, err := ban.ParseTopic(t)
				if err != nil {
					return cli.Usage("%w", err)
				}
				q.Topics = append(q.Topics, topic)
			}
			var k control.BouncerKey
			if err := p.client().Post(c.Context(), "/v1/bouncers", q, &k); err != nil {
				return err
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "api_key: %s\n", k.Key)
			switch {
			case k.Listen == "":
				fmt.Fprintln(w, "nobody answers bouncers yet: add to agent.toml and restart the agent")
				fmt.Fprintln(w, "\n[lapi]\nlisten = \"127.0.0.1:8080\"")
			case strings.HasPrefix(k.Listen, "/"):
				fmt.Fprintf(w, "api_url: %s\n", k.Listen)
			default:
				fmt.Fprintf(w, "api_url: http://%s/\n", k.Listen)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&topics, "topic", nil, "tell it the bans of this topic alone; may be repeated")
	return c
}

func newBouncersRemoveCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Take a bouncer's key away",
		Example: "  agent bouncers remove nginx",
		Long:    "Take a bouncer's key away. Bans that it was told stay in it until their ends, or until it is stopped.\n" + cli.ExitHelp,
		Args:    exactly(1, "a name"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.client().Post(c.Context(), "/v1/bouncers/remove", control.BouncerRequest{Name: args[0]}, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s has no key any more; what it was told it holds until the ends that it knows\n", args[0])
			return nil
		},
	}
}
