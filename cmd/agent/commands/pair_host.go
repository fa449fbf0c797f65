package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/keys"
	"banmesh/internal/pairing"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

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
