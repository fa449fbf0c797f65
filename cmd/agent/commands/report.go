package commands

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os/exec"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/xarf"
)

// reportFlags are the flags of report.
type reportFlags struct {
	topic, class, org, contact, to, sendmail string
	lines, send                              bool
}

func newReportCommand(p *paths) *cobra.Command {
	var f reportFlags
	c := &cobra.Command{
		Use: "report ADDRESS", Short: "Write a report to the abuse desk of an offender's network (XARF)",
		Example: "  agent report 203.0.113.7\n  agent report 203.0.113.7 --lines --send --to abuse@example.net",
		Long: `Print a report of the newest offences of an address that this node banned for its own log, in the format XARF 4: when,
how often, of which kind, and from which port, by which a provider finds the customer. It comes from this node's history;
what peers claim is theirs to report. Nothing is sent without --send, which hands a mail to the machine's mail
system for the address that --to names: the abuse contact of the network, as whois or RDAP say it.

A log line can have names of users in it: --lines attaches it. Who reports is what the operator's card says, or --org and
--contact.
` + cli.ExitHelp,
		Args: exactly(1, "the address to report"),
		RunE: func(c *cobra.Command, args []string) error {
			address, err := netip.ParseAddr(args[0])
			if err != nil {
				return cli.Usage("%q is no address", args[0])
			}
			if f.send != (f.to != "") {
				return cli.Usage("--send and --to ADDRESS belong together")
			}
			r, err := p.report(c.Context(), address.Unmap(), f)
			if err != nil {
				return err
			}
			b, err := r.JSON()
			if err != nil {
				return err
			}
			if !f.send {
				_, err = c.OutOrStdout().Write(b)
				return err
			}
			message, err := r.Mail(f.to)
			if err != nil {
				return &cli.Error{Err: err, Code: cli.ExitUsage}
			}
			if err := mailIt(c.Context(), f.sendmail, message); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "report %s about %s is handed to %s for %s\n", r.ReportID, address, f.sendmail, f.to)
			return nil
		},
	}
	c.Flags().StringVar(&f.topic, "topic", "", "offences in this topic only")
	c.Flags().StringVar(&f.class, "class", "", "class of the offences, where the ban has ended: auth, invalid-user, scan, exploit, flood")
	c.Flags().StringVar(&f.org, "org", "", "who reports: an organisation (default: the name on the operator's card)")
	c.Flags().StringVar(&f.contact, "contact", "", "mail address for answers (default: the contact on the operator's card)")
	c.Flags().BoolVar(&f.lines, "lines", false, "attach the log line, which may have names of users in it")
	c.Flags().BoolVar(&f.send, "send", false, "send the report by mail")
	c.Flags().StringVar(&f.to, "to", "", "with --send: the mail address of the abuse desk")
	c.Flags().StringVar(&f.sendmail, "sendmail", "/usr/sbin/sendmail", "with --send: the program that takes mail")
	return c
}

// report makes the report of the newest ban of an address for this node's own log.
func (p *paths) report(ctx context.Context, address netip.Addr, f reportFlags) (r xarf.Report, err error) {
	target, err := ban.TargetOfAddr(address)
	if err != nil {
		return r, &cli.Error{Err: err, Code: cli.ExitUsage}
	}
	e, err := p.ownBan(ctx, target, f.topic)
	if err != nil {
		return r, err
	}
	class, err := p.classOf(ctx, e, f.class)
	if err != nil {
		return r, err
	}
	by, err := p.reporter(f)
	if err != nil {
		return r, err
	}
	i := xarf.Incident{Address: address, Port: e.Port, First: e.First, Last: e.At, Class: class, Topic: e.Topic, Count: e.Count}
	if f.lines {
		i.Line = e.Sample
	}
	r, err = xarf.New(i, by)
	switch {
	case errors.Is(err, xarf.ErrPort):
		return r, cli.Hint(err, "topics whose lines have a port say so by <F-PORT>: `agent explain-line`")
	case errors.Is(err, xarf.ErrClass):
		return r, cli.Hint(err, "reports are about auth, invalid-user, scan, exploit and flood: --class")
	}
	return r, err
}

// ownBan gives the newest ban of a target that rests on a line of this node's log.
func (p *paths) ownBan(ctx context.Context, target ban.Target, topic string) (e control.Event, err error) {
	q := url.Values{"target": {target.String()}, "kind": {"ban", "extend"}}
	if topic != "" {
		q.Set("topic", topic)
	}
	var page control.EventPage
	err = p.client().Get(ctx, "/v1/history", q, &page)
	if errors.Is(err, control.ErrNotRunning) {
		page, err = agent.HistoryOffline(p.state, q)
	}
	if err != nil {
		return e, err
	}
	for _, e := range page.Events { // the newest first
		if e.Target == target && !e.First.IsZero() {
			return e, nil
		}
	}
	return e, cli.Hint(fmt.Errorf("the history has no offences of %s in a log of this node", target), "agent history %s", target)
}

// classOf gives the class of a ban's offences: as asked for, or as the claim in
// force says.
func (p *paths) classOf(ctx context.Context, e control.Event, asked string) (ban.Class, error) {
	if asked != "" {
		class, err := ban.ParseClass(asked)
		if err != nil {
			return 0, cli.Usage("--class: %v", err)
		}
		return class, nil
	}
	var x control.Explanation
	err := p.client().Get(ctx, "/v1/explain", url.Values{"target": {e.Target.String()}}, &x)
	if errors.Is(err, control.ErrNotRunning) {
		x, err = agent.ExplainOffline(ctx, agent.Options{ConfigDir: p.config, StateDir: p.state}, e.Target)
	}
	if err != nil {
		return 0, err
	}
	for _, s := range x.Standings {
		for _, c := range s.Claims {
			if s.Topic == e.Topic && c.Operator == "" && c.On == e.Target {
				return c.Class, nil
			}
		}
	}
	return 0, cli.Hint(fmt.Errorf("the ban of %s in %s is over, and its class is no longer known", e.Target, e.Topic), "say it: --class auth")
}

// reporter gives who reports: as the flags say, and for the rest the operator's card.
func (p *paths) reporter(f reportFlags) (xarf.Party, error) {
	if f.org == "" || f.contact == "" {
		if id, err := keys.Load(p.state); err == nil {
			if card, _ := id.Card(); card != nil {
				f.org, f.contact = cmp.Or(f.org, card.Name), cmp.Or(f.contact, card.Contact)
			}
		}
	}
	by, err := xarf.NewParty(f.org, f.contact)
	if err != nil {
		return by, &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "--org NAME --contact abuse@your.domain"}
	}
	return by, nil
}

// mailIt hands a message to the machine's mail system, which reads the recipients
// from it.
func mailIt(ctx context.Context, program string, message []byte) error {
	c := exec.CommandContext(ctx, program, "-t", "-i")
	c.Stdin = bytes.NewReader(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n"))) // as local mail has it
	if out, err := c.CombinedOutput(); err != nil {
		return cli.Hint(fmt.Errorf("handing the report to %s: %w: %s", program, err, bytes.TrimSpace(out)), "nothing was sent; print the report without --send")
	}
	return nil
}
