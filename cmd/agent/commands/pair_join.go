package commands

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// join goes to the host with the code.
func (o *pairOptions) join(c *cobra.Command, p *paths, host, typed string) error {
	code, err := pairing.ParseCode(typed)
	if err != nil {
		return cli.Usage("%v", err)
	}
	set, err := settings.Load(p.config, p.state)
	if err != nil {
		return err
	}
	if err := p.client().Get(c.Context(), "/v1/status", nil, nil); !notRunning(err) && !p.isService(c.Context()) {
		return cli.Hint(errors.Join(errors.New("the agent runs with the keys that are here"), err), "end `agent run` first, and start it again when the machines are paired")
	}
	now := time.Now()
	// A join that was cut short ends first.
	if _, err := keys.Load(p.state); err != nil && !errors.Is(err, keys.ErrNoIdentity) && !errors.Is(err, keys.ErrNotCertified) {
		return keyAdvice(err)
	}
	request, err := keys.RequestText(p.state, now)
	if err != nil {
		return keyAdvice(err)
	}
	var r pairReport
	var left []string
	j := pairing.Joiner{Host: host, Code: code, Request: pairing.Request{Node: request}, Now: time.Now, Take: func(offer pairing.Offer, card *wire.Card) error {
		r, left, err = take(p, set, host, offer, card)
		return err
	}}
	key, err := j.Request.Key()
	if err != nil {
		return err
	}
	if err := j.Join(c.Context()); err != nil {
		return joinAdvice(err, host)
	}
	r.Node = ban.NodeOf(key[:]).String()
	if !p.isService(c.Context()) {
		// The service does it when it starts: it may still write the card that it knows.
		if _, err := keys.Load(p.state); err != nil {
			return keyAdvice(err)
		}
	}
	followed, err := follow(c, p, true, o.noStop, true)
	if err != nil {
		return err
	}
	r.Restarted = followed.restarted
	if o.asJSON {
		return jsonLine(c.OutOrStdout(), r)
	}
	printJoined(c, r, followed, left)
	return nil
}

func printJoined(c *cobra.Command, r pairReport, f followed, left []string) {
	out := c.OutOrStdout()
	t := cli.NewTable(out)
	t.Row("this server", "node "+r.Node)
	operator, _ := ban.ParseOperator(r.Operator)
	t.Row("of operator", r.Operator)
	t.Row("in words", wire.SpokenFingerprint(operator))
	t.Row("network", r.Network)
	for _, b := range r.Brokers {
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

// take writes an offer down: configuration first, which alone changes nothing of who
// this node is, and the card last.
func take(p *paths, set *settings.Settings, host string, o pairing.Offer, card *wire.Card) (r pairReport, left []string, err error) {
	if err := keys.CheckJoin(p.state, card.Operator); err != nil {
		return r, nil, err
	}
	conf, err := config.Load(p.config)
	if err != nil {
		return r, nil, err
	}
	r = pairReport{Event: "paired", Operator: card.Operator.String(), Card: card.Serial, Network: o.Network, Address: host}
	var brokers []any
	for i, b := range o.Brokers {
		r.Brokers = append(append(r.Brokers, b.URL), b.Others...)
		if b.Account {
			left = append(left, b.URL+" asks for an account, which is not handed over: user and password_file below it, by hand")
		}
		entry := map[string]any{"url": b.URL}
		if len(b.Others) > 0 {
			entry["others"] = b.Others
		}
		if b.Fingerprint != "" {
			entry["fingerprint"] = b.Fingerprint
		}
		if b.ServerName != "" {
			entry["server_name"] = b.ServerName
		}
		if b.CA != "" {
			path := filepath.Join(p.config, fmt.Sprintf("broker-ca-%d.pem", i+1))
			if err := config.WriteAtomic(path, []byte(b.CA), 0o644); err != nil {
				return r, nil, err
			}
			entry["ca_file"] = path
			r.Written = append(r.Written, path)
		}
		brokers = append(brokers, entry)
	}
	written, err := p.edit("network", func(tree map[string]any) error {
		tree["network"] = o.Network
		others := ownBrokers(conf, tree)
		tree["brokers"] = slices.DeleteFunc(brokers, func(x any) bool { return slices.Contains(others, fmt.Sprint(x.(map[string]any)["url"])) })
		if len(tree["brokers"].([]any)) == 0 {
			delete(tree, "brokers")
		}
		for _, side := range []struct {
			key  string
			list []ban.Topic
			said *[]string
		}{{"subscribe", o.Accept, &r.Accept}, {"publish", o.Publish, &r.Publish}} {
			for _, t := range side.list {
				if _, ok := set.Find(t); !ok {
					left = append(left, fmt.Sprintf("topic %s is not known here, and not shared: `agent topics search`", t))
					continue
				}
				config.Table(tree, "topics", string(t))[side.key] = true
				*side.said = append(*side.said, string(t))
			}
		}
		return nil
	})
	if err != nil {
		return r, nil, err
	}
	r.Written = append(r.Written, written.path)
	if set, err = settings.Load(p.config, p.state); err != nil {
		return r, nil, errors.Join(err, written.undo())
	}
	r.Accept, left = inForce(set, "subscribe", r.Accept, left)
	r.Publish, left = inForce(set, "publish", r.Publish, left)
	_, raw, err := wire.ParseCardText([]byte(o.Card))
	if err == nil {
		err = keys.Join(p.state, raw)
	}
	if err != nil {
		return r, nil, errors.Join(err, written.undo())
	}
	r.Written = append(r.Written, p.state)
	return r, slices.Compact(left), nil
}

// inForce gives those of a pairing's topics of which a switch is on. The others were
// switched off before, by a file that wins over the pairing's: left says so.
func inForce(set *settings.Settings, key string, topics, left []string) (on, all []string) {
	for _, name := range topics {
		t, _ := set.Find(ban.Topic(name))
		switch {
		case key == "subscribe" && t.Subscribe, key == "publish" && t.Publish:
			on = append(on, name)
		case key == "subscribe":
			left = append(left, fmt.Sprintf("topic %s is not accepted: it was switched off here before, and `agent topics subscribe %[1]s` switches it on", name))
		default:
			left = append(left, fmt.Sprintf("topic %s is not published: it was switched off here before, and `agent topics publish %[1]s` switches it on", name))
		}
	}
	return on, left
}

// ownBrokers are the brokers that the configuration names outside of a drop-in file's tree.
func ownBrokers(conf *config.Loaded, tree map[string]any) (list []string) {
	var here []string
	before, _ := tree["brokers"].([]any)
	for _, b := range before {
		entry, _ := b.(map[string]any)
		here = append(here, fmt.Sprint(entry["url"]))
	}
	for _, b := range conf.Brokers {
		if i := slices.Index(here, b.URL); i >= 0 {
			here = slices.Delete(here, i, i+1)
			continue
		}
		list = append(list, b.URL)
	}
	return list
}

// joinAdvice words why a machine did not join.
func joinAdvice(err error, host string) error {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, pairing.ErrCode):
		return cli.Hint(err, "type it again; if it was right, somebody stands between the two machines. Nothing was changed")
	case errors.Is(err, pairing.ErrRefused), errors.Is(err, pairing.ErrProtocol):
		return cli.Hint(err, "nothing was changed; run `banmesh pair` there again for a new code")
	case errors.Is(err, keys.ErrOtherNodes):
		return cli.Hint(err, "pair them the other way round: `banmesh pair` here, and the code there")
	case errors.Is(err, syscall.ECONNREFUSED):
		return cli.Hint(err, "run `banmesh pair` on %s first; it waits for ten minutes", host)
	case ok && timeout.Timeout(), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return cli.Hint(err, "a firewall may be in between: TCP port %d of %s has to be open while it waits", pairing.Port, host)
	}
	return err
}

// followed is the outcome for this machine's agent.
type followed struct {
	restarted bool
	text      string
}

// follow lets the agent of this machine take over a pairing: by a reload where only the
// card changed, by a restart of the service otherwise, and by its first start where
// that is meant.
func follow(c *cobra.Command, p *paths, restart, leave, start bool) (f followed, err error) {
	ctx := c.Context()
	service := p.isService(ctx)
	running := service || !notRunning(p.client().Get(ctx, "/v1/status", nil, nil))
	if running && !restart {
		// The files of a pairing that was cut short may still want a restart.
		if p.client().Post(ctx, "/v1/reload", control.ReloadRequest{Yes: true}, &control.Effect{}) == nil {
			return followed{text: "the running agent follows"}, nil
		}
	}
	verb, said := []string{"restart", unit}, "restarted"
	switch {
	case service && !leave:
	case running:
		return followed{text: "the agent follows when it is restarted"}, nil
	case start && !leave && p.hasService():
		verb, said = []string{"enable", "--now", unit}, "started"
	default:
		return followed{text: "the agent is not running and will read it when it starts"}, nil
	}
	if text, err := exec.CommandContext(ctx, "systemctl", verb...).CombinedOutput(); err != nil {
		return f, cli.Hint(fmt.Errorf("everything is written, but %s does not start: %w: %s", unit, err, strings.TrimSpace(string(text))), "`journalctl -u banmesh-agent` says why")
	}
	return followed{restarted: true, text: fmt.Sprintf("the service %s is %s and follows; `banmesh status` shows it", unit, said)}, nil
}

// hasService says whether systemd has the agent's unit, and these are its places.
func (p *paths) hasService() bool {
	if os.Geteuid() != 0 || p.config != "/etc/banmesh" || p.state != "/var/lib/banmesh" {
		return false
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	for _, dir := range []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(dir, unit)); err == nil {
			return true
		}
	}
	return false
}

// isService says whether the agent of these places runs as the service.
func (p *paths) isService(ctx context.Context) bool {
	return p.hasService() && exec.CommandContext(ctx, "systemctl", "is-active", "--quiet", unit).Run() == nil
}
