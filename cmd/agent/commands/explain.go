package commands

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/policy"
)

func newExplainCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "explain TARGET|REFERENCE",
		Short:   "Why is this address, prefix or wallet banned, or not?",
		Example: "  agent explain 203.0.113.7\n  agent explain 7ZK3M-0QX9V   # the reference of a visitor's page",
		Long: `Say why a target is banned or not: who claims it, which rule is met, since when, until when, whether the kernel has it,
what the topic's bans have met, and what would lift it. Without a running agent the answer comes from what it left on
disk. The log line is shown for this node's own bans only; it never leaves the node.
` + cli.ExitHelp,
		Args: exactly(1, "the target to explain"),
		RunE: func(c *cobra.Command, args []string) error {
			target, err := p.targetOrReference(c, args[0])
			if err != nil {
				return err
			}
			var e control.Explanation
			err = p.client().Get(c.Context(), "/v1/explain", url.Values{"target": {target.String()}}, &e)
			if errors.Is(err, control.ErrNotRunning) {
				e, err = agent.ExplainOffline(c.Context(), agent.Options{ConfigDir: p.config, StateDir: p.state}, target)
			}
			if err != nil {
				return err
			}
			p.addOwnNotes(&e)
			if asJSON {
				return cli.JSON(c.OutOrStdout(), e)
			}
			printExplanation(c.OutOrStdout(), e, time.Now())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// targetOrReference reads a target, or finds the one of a visitor's reference.
func (p *paths) targetOrReference(c *cobra.Command, text string) (ban.Target, error) {
	target, err := parseTarget(text)
	reference, ok := export.ParseReference(text)
	if err == nil || !ok {
		return target, err
	}
	var found control.Referenced
	err = p.client().Get(c.Context(), "/v1/reference", url.Values{"reference": {reference}}, &found)
	return found.Target, err
}

func printExplanation(w io.Writer, e control.Explanation, now time.Time) {
	if e.Offline {
		fmt.Fprintln(w, "no agent runs; this is what it left on disk, as of now")
	}
	defer printKernel(w, e)
	if e.Shield != "" {
		fmt.Fprintf(w, "%s is shielded: %s\n", e.Target, cli.Printable(e.Shield))
	}
	if e.Guest != "" {
		fmt.Fprintf(w, "%s is %s: no peer and no weak evidence bans it\n", e.Target, cli.Printable(e.Guest))
	}
	for _, h := range e.Held {
		fmt.Fprintf(w, "%s offended %d times and is held in %s\n  why    %s\n", h.Target, h.Hits, h.Topic, cli.Printable(h.Why))
		if h.From != "" {
			fmt.Fprintf(w, "  from   %s\n", cli.Printable(h.From))
		}
	}
	for _, x := range e.Shielded {
		text := fmt.Sprintf("offended %s in %s and is not banned, the last one at %s", plural(x.Offences, "time"), x.Topic, clock(x.Last))
		fmt.Fprintf(w, "%s %s\n  why    %s\n", x.Target, cli.Wrap(w, len(x.Target.String())+1, "  ", text), cli.Wrap(w, 9, "         ", cli.Printable(x.Entry)))
	}
	for _, x := range e.AfterBan {
		text := fmt.Sprintf("%s in %s after its ban, the last one at %s: %s", plural(x.Offences, "offence"), x.Topic, clock(x.Last), x.Reason)
		fmt.Fprintf(w, "%s made %s\n", x.Target, cli.Wrap(w, len(x.Target.String())+6, "  ", cli.Printable(text)))
		if x.Fix != "" {
			fmt.Fprintf(w, "  mend   %s\n", cli.Printable(x.Fix))
		}
	}
	for _, x := range e.Counted {
		text := fmt.Sprintf("offended %s in %s, the last time at %s: %d within %s would be a ban", plural(x.Offences, "time"), x.Topic, clock(x.Last), x.Limit, x.Within)
		fmt.Fprintf(w, "%s %s\n", x.Target, cli.Wrap(w, len(x.Target.String())+1, "  ", text))
	}
	if len(e.Standings) == 0 && len(e.Held) == 0 && len(e.Shielded) == 0 {
		nothing := ", and nothing that it did counts here"
		if len(e.Counted) > 0 || len(e.AfterBan) > 0 || e.Offline {
			nothing = ""
		}
		text := "is not banned: nobody whom this node listens to claims it" + nothing
		fmt.Fprintf(w, "%s %s\n", e.Target, cli.Wrap(w, len(e.Target.String())+1, "  ", text))
		return
	}
	for _, s := range e.Standings {
		in := "in " + string(s.Topic)
		if s.Target != e.Target {
			in += fmt.Sprintf(", as part of %s", s.Target)
		}
		switch s.Action {
		case control.ActionBan:
			text := fmt.Sprintf("%s until %s, for %s more", in, clock(s.Until), cli.Short(s.Until.Sub(now)))
			if s.Observed {
				text += "; the topic is observed: nothing is refused"
				fmt.Fprintf(w, "%s would be banned %s\n", e.Target, cli.Wrap(w, len(e.Target.String())+len(" would be banned "), "  ", text))
				break
			}
			taken := len(e.Target.String()) + len(" is banned ")
			fmt.Fprintf(w, "%s is %s %s\n", e.Target, cli.Paint(w, cli.Bad, "banned"), cli.Wrap(w, taken, "  ", text))
		case control.ActionWatch:
			fmt.Fprintf(w, "%s is watched %s: its first offence here bans it, until %s\n", e.Target, in, clock(s.Until))
		case control.ActionSuspect:
			fmt.Fprintf(w, "%s is a suspect %s: its second offence here bans it, until %s\n", e.Target, in, clock(s.Until))
		default:
			fmt.Fprintf(w, "%s is not banned %s\n", e.Target, in)
		}
		why := s.Sentence
		if s.Rule != "" {
			why += ": " + s.Rule
		}
		if !s.Since.IsZero() {
			why += ", since " + clock(s.Since)
		}
		fmt.Fprintf(w, "  why    %s\n", cli.Wrap(w, 9, "         ", cli.Printable(why)))
		for _, c := range s.Claims {
			fmt.Fprintf(w, "  claim  %s\n", cli.Wrap(w, 9, "         ", cli.Printable(claimLine(c, now))))
			if c.Evidence != nil && c.Evidence.Sample != "" {
				fmt.Fprintf(w, "         %s\n", cli.Printable(strings.TrimSpace(c.Evidence.Sample)))
			}
			if c.Listed != nil {
				fmt.Fprintf(w, "         %s\n", cli.Wrap(w, 9, "         ", cli.Printable(listedLine(*c.Listed))))
			}
		}
		for _, d := range s.Disputes {
			fmt.Fprintf(w, "  disputed by %s until %s\n", cli.Printable(d.Name), clock(d.End))
		}
		for _, l := range s.Lifts {
			fmt.Fprintf(w, "  lift   %s\n", cli.Printable(l))
		}
	}
}

// printKernel says whether the kernel holds the target.
func printKernel(w io.Writer, e control.Explanation) {
	if k := e.Kernel; k != nil {
		switch {
		case k.Never:
			fmt.Fprintln(w, "  kernel lets it pass before any ban")
		case k.Banned && !k.Left.IsZero():
			fmt.Fprintf(w, "  kernel holds it in %s, for %s more\n", k.Map, cli.Short(k.Left.Duration()))
		case k.Banned:
			fmt.Fprintf(w, "  kernel holds it in %s\n", k.Map)
		default:
			fmt.Fprintln(w, "  kernel does not hold it")
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(e.Met)) {
		fmt.Fprintf(w, "  met    the bans in %s have met %d packets\n", topic, e.Met[topic].Packets)
	}
}

func claimLine(c control.Claimed, now time.Time) string {
	parts := []string{c.Name, c.Class.String()}
	if c.Source != "" && c.Evidence == nil {
		parts[0] += " (" + c.Source + ")"
	}
	parts = append(parts, c.Basis.String())
	if c.Hits > 0 {
		parts = append(parts, plural(int(c.Hits), "hit"))
	}
	if c.Established {
		parts = append(parts, "over an established connection")
	}
	parts = append(parts, "ends in "+cli.Short(c.End.Sub(now)))
	if c.Evidence != nil {
		if c.Evidence.By != "" {
			parts = append(parts, "found by "+c.Evidence.By)
		}
		if c.Evidence.Source != "" {
			parts = append(parts, "from "+c.Evidence.Source)
		}
	}
	if !c.Counts && c.WhyNot != policy.ReasonOwnOperator.String() {
		parts = append(parts, "does not count: "+c.Doubt)
	}
	return strings.Join(parts, ", ")
}
