package commands

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/pairing"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

// brokerPort is where the broker of a pairing host listens unless told otherwise: MQTT
// over TLS.
const brokerPort = "8883"

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

// hosting is a host that is ready to wait.
type hosting struct {
	o       *pairOptions
	p       *paths
	set     *settings.Settings
	conf    *config.Loaded
	network string
	brokers []pairing.Broker
	topics  []settings.Topic
	own     bool // the agent is to run a broker
	// accept and publish are the topics that are handed over, once the
	// configuration is written, and left says of which that is not so.
	accept, publish, left []string
	change                *change
	written               []string
	store                 *keys.Store
}

// host waits for a machine that brings the code.
func (o *pairOptions) host(c *cobra.Command, p *paths) error {
	h, err := o.prepare(c, p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), o.life)
	defer cancel()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", o.listen)
	if err != nil {
		return portAdvice(err, "--listen :PORT waits on another one, which the other machine names: `banmesh pair HOST:PORT CODE`")
	}
	code := pairing.NewCode()
	port := l.Addr().(*net.TCPAddr).Port
	addresses := ownAddresses()
	if o.asJSON {
		if err := jsonLine(c.OutOrStdout(), pairReport{Event: "waiting", Code: string(code), Port: port, Addresses: addresses, Until: time.Now().Add(o.life).UTC().Truncate(time.Second)}); err != nil {
			return errors.Join(err, l.Close())
		}
	} else {
		o.invite(c.OutOrStdout(), code, port, addresses)
	}
	joined, err := (&pairing.Host{
		Code: code, Offer: h.offer,
		Wrong: func(from net.Addr, left int) {
			fmt.Fprintf(c.ErrOrStderr(), "a wrong code came from %s; %s left\n", from, verb(left, "try is", "tries are"))
		},
	}).Serve(ctx, l)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.Join(&cli.Error{Err: errors.New("nobody was paired"), Code: cli.ExitPartly}, h.undo())
	case errors.Is(err, pairing.ErrTries):
		return errors.Join(cli.Hint(err, "nobody was paired. If it was you, run it again for a new code; otherwise somebody else reaches this port"), h.undo())
	case err != nil:
		return errors.Join(cli.Hint(err, "nobody was paired; run it again for a new code"), h.undo())
	}
	return h.finish(c, joined)
}

// prepare finds the brokers and topics to hand over, and asks.
func (o *pairOptions) prepare(c *cobra.Command, p *paths) (h *hosting, err error) {
	h = &hosting{o: o, p: p}
	if h.set, err = settings.Load(p.config, p.state); err != nil {
		return nil, err
	}
	if h.conf, err = config.Load(p.config); err != nil {
		return nil, err
	}
	if o.dir == "" {
		o.dir = p.state
		// The agent makes them at its first start; here is one who wants them now.
		if _, err := keys.Open(o.dir, "", time.Now()); err != nil {
			return nil, keyAdvice(err)
		}
	}
	if h.store, err = keys.OpenStore(o.dir); err != nil {
		return nil, keyAdvice(err)
	}
	h.network = networkOf(h.conf)
	if h.brokers, err = h.reachable(); err != nil {
		return nil, err
	}
	if len(h.brokers) == 0 {
		if err := h.askOwn(c); err != nil {
			return nil, err
		}
	}
	return h, h.chooseTopics()
}

// askOwn asks whether this agent is to run the broker, and looks whether it could.
func (h *hosting) askOwn(c *cobra.Command) error {
	o := h.o
	q := newQuestions(c, o.yes)
	const no = "no broker that another machine reaches is named here"
	if !o.yes && !q.terminal {
		return cli.Hint(errors.New(no), "--yes lets this agent run one on %s with TLS; --broker URL names one", o.own)
	}
	if !q.ask(fmt.Sprintf("%s. Let this agent run one, with TLS, on %s?", strings.ToUpper(no[:1])+no[1:], o.own), true) {
		return &cli.Error{Err: errors.New("nothing was changed"), Code: cli.ExitPartly, Hint: "--broker URL hands over another one"}
	}
	if conf := h.conf.EmbeddedBroker; conf.Listen != o.own {
		l, err := net.Listen("tcp", o.own)
		if err != nil {
			return portAdvice(err, "--broker-listen :PORT takes another one")
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	_, fingerprint, err := keys.BrokerCertificate(h.p.state, time.Now())
	if err != nil {
		return err
	}
	h.own, h.brokers = true, []pairing.Broker{{URL: addressOf("ssl", o.own), Fingerprint: fingerprint}}
	return nil
}

// reachable are the brokers that another machine reaches.
func (h *hosting) reachable() (list []pairing.Broker, err error) {
	for _, u := range h.o.brokers {
		addresses := strings.Fields(u)
		if len(addresses) == 0 {
			return nil, cli.Usage("--broker names no address")
		}
		list = append(list, pairing.Broker{URL: addresses[0], Others: addresses[1:]})
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, b := range h.conf.Brokers {
		all := slices.DeleteFunc(append([]string{b.URL}, b.Others...), here)
		if len(all) == 0 {
			continue
		}
		x := pairing.Broker{URL: all[0], Others: all[1:], Fingerprint: b.Fingerprint, ServerName: b.ServerName, Account: b.User != ""}
		if b.CAFile != "" {
			pem, err := os.ReadFile(b.CAFile)
			if err != nil {
				return nil, err
			}
			x.CA = string(pem)
		}
		list = append(list, x)
	}
	e := h.conf.EmbeddedBroker
	enabled := len(h.conf.Brokers) == 0
	if e.Enabled != nil {
		enabled = *e.Enabled
	}
	if scheme := map[bool]string{true: "ssl", false: "tcp"}[e.TLS]; enabled && e.Listen != "" && !here(scheme+"://"+e.Listen) {
		x := pairing.Broker{URL: addressOf(scheme, e.Listen)}
		if e.TLS {
			if _, x.Fingerprint, err = keys.BrokerCertificate(h.p.state, time.Now()); err != nil {
				return nil, err
			}
		}
		list = append(list, x)
	}
	return list, nil
}

// chooseTopics finds the topics to share.
func (h *hosting) chooseTopics() error {
	for _, name := range h.o.topics {
		t, ok := h.set.Find(ban.Topic(name))
		if !ok {
			return &cli.Error{Err: fmt.Errorf("no topic %q is known here", name), Code: cli.ExitUsage, Hint: "see `agent topics list`"}
		}
		t.Subscribe, t.Publish = true, true
		h.topics = append(h.topics, t)
	}
	if len(h.topics) > 0 {
		return nil
	}
	for _, t := range h.set.Topics() {
		if t.Subscribe || t.Publish {
			h.topics = append(h.topics, t)
		}
	}
	if len(h.topics) > 0 || !h.own {
		return nil
	}
	for _, t := range h.set.Topics() {
		if t.Detect {
			t.Subscribe, t.Publish = true, true
			h.topics = append(h.topics, t)
		}
	}
	return nil
}

// here says whether an address is of this machine alone.
func here(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "unix" {
		return true
	}
	if u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.Unmap().IsLoopback()
}

// addressOf is the URL of a listener, without a host where it listens everywhere.
func addressOf(scheme, listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return scheme + "://" + listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		return scheme + "://:" + port
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// ownAddresses are this machine's, those that others may reach, without the bridges of
// containers.
func ownAddresses() (list []string) {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 || strings.HasPrefix(l.Name, "docker") || strings.HasPrefix(l.Name, "br-") || strings.HasPrefix(l.Name, "veth") && len(l.Name) > 8 {
			continue
		}
		all, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				list = append(list, n.IP.String())
			}
		}
	}
	// IPv4 first: it is shorter to read aloud.
	slices.SortStableFunc(list, func(a, b string) int {
		return cmp.Compare(strings.Count(a, ":"), strings.Count(b, ":"))
	})
	return list
}

// invite tells a person how to go on.
func (o *pairOptions) invite(out io.Writer, code pairing.Code, port int, addresses []string) {
	host := "HOST"
	if len(addresses) > 0 {
		host = addresses[0]
	}
	if port != pairing.Port {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	fmt.Fprintf(out, "on the other server, within %s:\n\n  sudo banmesh pair %s %s\n\n", cli.Short(o.life), host, code)
	if len(addresses) > 1 {
		fmt.Fprintf(out, "this server is also %s\n", strings.Join(addresses[1:min(len(addresses), 4)], ", "))
	}
	fmt.Fprintf(out, "waiting on TCP port %d, which has to be open for it; Ctrl-C ends that\n", port)
}

// offer certifies the node that brought the code. It is called once at most.
func (h *hosting) offer(q pairing.Request) (o pairing.Offer, err error) {
	key, err := q.Key()
	if err != nil {
		return o, err
	}
	if err := h.configure(); err != nil {
		return o, err
	}
	// The running agent may have taken a newer card meanwhile.
	if h.store, err = keys.OpenStore(h.o.dir); err != nil {
		return o, err
	}
	if err := h.store.CertifyPaired(key, time.Now()); err != nil {
		return o, err
	}
	card, raw := h.store.Card()
	if err := card.Certifies(key, time.Now()); err != nil {
		return o, err
	}
	o = pairing.Offer{Card: wire.CardText(raw), Network: h.network, Brokers: slices.Clone(h.brokers), Accept: []ban.Topic{}, Publish: []ban.Topic{}}
	for _, t := range h.accept {
		o.Accept = append(o.Accept, ban.Topic(t))
	}
	for _, t := range h.publish {
		o.Publish = append(o.Publish, ban.Topic(t))
	}
	return o, nil
}

// configure writes the broker that this agent is to run, and topics that it does not
// share yet.
func (h *hosting) configure() error {
	missing := slices.DeleteFunc(slices.Clone(h.topics), func(t settings.Topic) bool {
		now, ok := h.set.Find(t.Topic)
		return ok && now.Subscribe == t.Subscribe && now.Publish == t.Publish
	})
	if !h.own && len(missing) == 0 {
		h.share(h.set)
		return nil
	}
	change, err := h.p.edit("network", func(tree map[string]any) error {
		if h.own {
			tree["embedded_broker"] = map[string]any{"enabled": true, "listen": h.o.own, "tls": true}
		}
		for _, t := range missing {
			entry := config.Table(tree, "topics", string(t.Topic))
			entry["subscribe"], entry["publish"] = t.Subscribe, t.Publish
		}
		return nil
	})
	if err != nil {
		return err
	}
	now, err := settings.Load(h.p.config, h.p.state)
	if err != nil {
		return errors.Join(err, change.undo())
	}
	h.change, h.written = change, append(h.written, change.path)
	h.share(now)
	return nil
}

// share notes the topics of the pairing whose switches are on in set.
func (h *hosting) share(set *settings.Settings) {
	var accept, publish []string
	for _, t := range h.topics {
		if t.Subscribe {
			accept = append(accept, string(t.Topic))
		}
		if t.Publish {
			publish = append(publish, string(t.Topic))
		}
	}
	h.accept, h.left = inForce(set, "subscribe", accept, nil)
	h.publish, h.left = inForce(set, "publish", publish, h.left)
}

// undo takes back the configuration of a pairing that did not come about.
func (h *hosting) undo() error {
	if h.change == nil {
		return nil
	}
	return h.change.undo()
}

// finish says who came, and lets this agent follow.
func (h *hosting) finish(c *cobra.Command, j *pairing.Joined) error {
	card, _ := h.store.Card()
	r := pairReport{
		Event: "paired", Node: j.Node.String(), Operator: h.store.Operator().String(), Card: card.Serial, Network: h.network, Address: j.Address.String(),
		Accept: h.accept, Publish: h.publish, Written: append(h.written, h.o.dir),
	}
	for _, b := range h.brokers {
		r.Brokers = append(r.Brokers, b.URL)
	}
	followed, err := follow(c, h.p, h.change != nil, h.o.noStop, false)
	if err != nil {
		return err
	}
	r.Restarted = followed.restarted
	if h.o.asJSON {
		if err := jsonLine(c.OutOrStdout(), r); err != nil {
			return err
		}
	} else {
		printPaired(c.OutOrStdout(), r, followed, h.left)
	}
	if !j.Confirmed {
		text := "the other machine did not say that it joined"
		if j.Fault != "" {
			text = "the other machine did not join: " + cli.Printable(j.Fault)
		}
		return &cli.Error{Err: errors.New(text), Code: cli.ExitPartly, Hint: fmt.Sprintf("look there with `banmesh key show`, and run this again for a new code; `banmesh key node revoke %s` takes its certificate back", j.Node)}
	}
	return nil
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

// portAdvice words the fault of a port that cannot be opened.
func portAdvice(err error, hint string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("%w: another program listens there", err), "%s", hint)
	}
	return err
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
