package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/pairing"
	"banmesh/internal/wire"
)

// pairOptions are the flags of pair.
type pairOptions struct {
	listen, own, dir    string
	brokers, topics     []string
	life                time.Duration
	yes, asJSON, noStop bool
}

// pairReport is a line of `agent pair --json`.
type pairReport struct {
	Event string `json:"event"` // "waiting" or "paired"

	// Of a host that waits.
	Code      string    `json:"code,omitempty"`
	Port      int       `json:"port,omitempty"`
	Addresses []string  `json:"addresses,omitempty"` // of this machine
	Until     time.Time `json:"until,omitzero"`

	// Of both sides in the end.
	Node      string   `json:"node,omitempty"` // the machine that came
	Operator  string   `json:"operator,omitempty"`
	Card      uint64   `json:"card,omitempty"`    // its number
	Address   string   `json:"address,omitempty"` // of the other side
	Network   string   `json:"network,omitempty"`
	Brokers   []string `json:"brokers,omitempty"`
	Accept    []string `json:"accept,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Written   []string `json:"written,omitempty"`   // files
	Restarted bool     `json:"restarted,omitempty"` // the service of this machine
}

func newPairCommand(p *paths) *cobra.Command {
	o := &pairOptions{}
	c := &cobra.Command{
		Use: "pair [HOST CODE]", Short: "Let another server of yours join this one over a code that is read aloud",
		Example: "  first$   sudo banmesh pair\n  second$  sudo banmesh pair 192.0.2.10 lusab-bidof",
		Long: `Without arguments, on the server that has the operator's key: print a code and wait for one machine that brings
it. With the address of that server and the code, on the other one: become a node of the same operator, and take
over network, brokers and the topics that are shared. Each makes its own key, and no secret key leaves its machine.

The code is good once and for ten minutes. Who listens to the network learns nothing of it; who guesses has three
tries in all, and the port is open only while the command waits. Where the first server names no broker that
others reach, it is asked whether its agent should run one, with TLS, on port 8883 (--yes: it does).
` + cli.ExitHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if n := len(args); n != 0 && n < 2 || n > 3 {
				return cli.Usage("want nothing, or the other machine's address and the code that it shows")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return o.join(c, p, args[0], strings.Join(args[1:], " "))
			}
			return o.host(c, p)
		},
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", fmt.Sprintf(":%d", pairing.Port), "address to wait on for the other machine")
	f.StringVar(&o.own, "broker-listen", ":"+brokerPort, "address of the broker that this agent runs, where no other is named")
	f.StringArrayVar(&o.brokers, "broker", nil, "hand over this broker in place of those of the configuration")
	f.StringArrayVar(&o.topics, "topic", nil, "share this topic among the two (default: those that this server shares; with a new broker, those that it watches)")
	f.DurationVar(&o.life, "for", pairing.Life, "how long to wait")
	f.BoolVar(&o.yes, "yes", false, "run a broker in this agent if none is named, without a question")
	f.BoolVar(&o.noStop, "no-restart", false, "do not start or restart the service")
	f.BoolVar(&o.asJSON, "json", false, "print JSON, a line when it waits and a line in the end")
	addDir(c, &o.dir)
	return c
}

func printPaired(out io.Writer, r pairReport, f followed, left []string) {
	t := cli.NewTable(out)
	t.Row("paired with", "node "+r.Node+" at "+r.Address)
	operator, _ := ban.ParseOperator(r.Operator)
	t.Row("operator", r.Operator)
	t.Row("in words", wire.SpokenFingerprint(operator))
	t.Row("card", fmt.Sprintf("number %d", r.Card))
	t.Row("network", r.Network)
	for _, b := range r.Brokers {
		if strings.Contains(b, "://:") {
			b += " of this server"
		}
		t.Row("broker", cli.Printable(b))
	}
	t.Row("shared", sharedText(r))
	for _, w := range r.Written {
		t.Row("written", w)
	}
	_ = t.Flush() // a terminal that went away
	for _, text := range left {
		fmt.Fprintln(out, text)
	}
	fmt.Fprintln(out, f.text)
}

// sharedText says which topics are shared.
func sharedText(r pairReport) string {
	if len(r.Accept)+len(r.Publish) == 0 {
		return "no topic yet: `agent topics subscribe` and `publish` on each server"
	}
	all := slices.Concat(r.Accept, r.Publish)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// notRunning says whether err means that no agent runs.
func notRunning(err error) bool { return errors.Is(err, control.ErrNotRunning) }

// jsonLine writes a value on a line of its own, at once.
func jsonLine(out io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", b)
	return err
}
