package commands

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/config"
	"banmesh/internal/federation"
	"banmesh/internal/printable"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

func newTapCommand(p *paths) *cobra.Command {
	var url, network, topic, operator, user, password, ca string
	var count int
	var asJSON bool
	c := &cobra.Command{
		Use: "tap", Short: "Decode what a broker carries, and say of each message why it is or is not believed",
		Example: "  agent tap --topic sshd\n  agent tap --broker ssl://broker.example.org:8883 --operator 6otxxr3xmzvq3wmhdzurq6ssnm --json",
		Long: `Listen to a broker as anybody could, and print every message: what it is, what it says, and whether this
node would believe it. Nothing is applied. The tap logs in with a key that it makes for the occasion, so it does not
disturb the agent. A broker may refuse to show everything; name a topic or an operator then.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			tap := federation.Tap{Network: network, Now: time.Now}
			var o ban.Operator
			if operator != "" {
				var err error
				if o, err = ban.ParseOperator(operator); err != nil {
					return cli.Usage("--operator: %v", err)
				}
			}
			if topic != "" {
				if _, err := ban.ParseTopic(topic); err != nil {
					return cli.Usage("--topic: %v", err)
				}
			}
			set, err := settings.Load(p.config, p.state)
			if err != nil {
				return err
			}
			conf, err := config.Load(p.config)
			if err != nil {
				return err
			}
			if tap.Network == "" {
				tap.Network = networkOf(conf)
			}
			if err := wire.CheckNetwork(tap.Network); err != nil {
				return cli.Usage("--network: %v", err)
			}
			tap.Trusted = func(o ban.Operator) (string, bool) { return set.Policy().Name(o) }
			switch {
			case url != "":
				tap.Broker.URL = url
			case len(conf.Brokers) > 0:
				if tap.Broker, err = settings.BrokerOf(conf.Brokers[0]); err != nil {
					return fmt.Errorf("broker %s: %w", conf.Brokers[0].URL, err)
				}
			default:
				if tap.Broker.URL = "tcp://" + conf.EmbeddedBroker.Listen; conf.EmbeddedBroker.Listen == "" || conf.EmbeddedBroker.TLS {
					tap.Broker.URL = "unix://" + agent.EmbeddedSocket(p.state)
				}
			}
			if user != "" {
				tap.Broker.User, tap.Broker.Password = user, password
			}
			if ca != "" {
				pem, err := os.ReadFile(ca)
				if err != nil {
					return err
				}
				tap.Broker.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
				if !tap.Broker.TLS.RootCAs.AppendCertsFromPEM(pem) {
					return fmt.Errorf("%s holds no certificate", ca)
				}
			}
			tap.Filters = federation.TapFilters(tap.Network, ban.Topic(topic), o)
			tap.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return runTap(c, tap, count, asJSON)
		},
	}
	f := c.Flags()
	f.StringVar(&url, "broker", "", "URL of the broker (default: the first one of the configuration)")
	f.StringVar(&user, "user", "", "user name, for a broker with accounts")
	f.StringVar(&password, "password", "", "password, for a broker with accounts")
	f.StringVar(&ca, "ca-file", "", "certificates of the authority that signs the broker's")
	f.StringVar(&network, "network", "", "network (default: that of the configuration)")
	f.StringVar(&topic, "topic", "", "one topic only")
	f.StringVar(&operator, "operator", "", "one operator only")
	f.IntVar(&count, "count", 0, "stop after so many messages")
	f.BoolVar(&asJSON, "json", false, "print a line of JSON a message")
	return c
}

// errEnough ends a tap that was told when to stop.
var errEnough = errors.New("enough")

func runTap(c *cobra.Command, tap federation.Tap, count int, asJSON bool) error {
	ctx, stop := context.WithCancelCause(c.Context())
	defer stop(nil)
	var failed error
	left := count
	tap.Heard = func(m federation.Tapped) {
		if failed != nil || count > 0 && left == 0 {
			return
		}
		if asJSON {
			failed = json.NewEncoder(printable.JSONWriter(c.OutOrStdout())).Encode(m)
		} else {
			failed = printTapped(c.OutOrStdout(), m)
		}
		if left--; failed != nil || count > 0 && left == 0 {
			stop(errEnough)
		}
	}
	fmt.Fprintf(c.ErrOrStderr(), "listening to network %s at %s; Ctrl-C ends it\n", tap.Network, strings.Join(append([]string{tap.Broker.URL}, tap.Broker.Others...), ", "))
	if err := tap.Run(ctx); err != nil {
		return err
	}
	return failed
}

func printTapped(w io.Writer, m federation.Tapped) error {
	mark := "ignored "
	if m.Believed {
		mark = "believed"
	}
	_, err := fmt.Fprintf(w, "%s %s %s %d B%s\n  %s\n", m.At.Format(time.TimeOnly), mark, cli.Printable(m.MQTT), m.Bytes,
		map[bool]string{true: " retained"}[m.Retained], cli.Printable(m.Why))
	d := m.Message
	if d == nil || err != nil {
		return err
	}
	fmt.Fprintf(w, "  %s number %d of epoch %d, issued %s\n", d.Kind, d.Number, d.Epoch, time.Unix(d.Issued, 0).UTC().Format(time.RFC3339))
	if d.Count != nil {
		fmt.Fprintf(w, "  batch %d, %d claims, fingerprint %s, good for %s\n", *d.N, *d.Count, d.Fingerprint, cli.Short(time.Duration(d.TTL)*time.Second))
	}
	if d.Kind == "card" {
		fmt.Fprintf(w, "  %s, %s\n", cli.Printable(cmp.Or(d.Name, "without a name")), plural(len(d.Nodes), "node"))
	}
	const most = 20
	for i, x := range d.Claims {
		if i == most {
			fmt.Fprintf(w, "  ... and %d more claims\n", len(d.Claims)-most)
			break
		}
		fmt.Fprintf(w, "  + %s until %s, %v, %s, %d hits\n", x.Target, time.Unix(x.End, 0).UTC().Format(time.DateTime), ban.Class(x.Class), x.Basis, x.Hits)
	}
	for i, x := range d.Withdrawn {
		if i == most {
			fmt.Fprintf(w, "  ... and %d more withdrawn\n", len(d.Withdrawn)-most)
			break
		}
		fmt.Fprintf(w, "  - %s, %s\n", x.Target, x.Reason)
	}
	return nil
}
