package commands

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/broker/settings"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newAdmitCommand() *cobra.Command {
	var o broker.GatewayOptions
	var ingressPassword, targetPassword, web string
	var operators []string
	c := &cobra.Command{
		Use:   "admit",
		Short: "Copy admitted messages from an open broker to the network's",
		Long: `Subscribe to an open broker, to which anybody may publish, and copy what this program
admits to the network's broker: signed by the feed, newer than what is there, within the
quotas. The network's broker may be any MQTT server that lets readers read and this
program alone write.
` + exitHelp,
		Example: "  broker admit --network example --from tcp://127.0.0.1:1884 --to tcp://nats:1883 --to-user admit --to-password-file /etc/banmesh-broker/admit",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			cli.OutliveReaders()
			o.Ingress.ClientID, o.Target.ClientID = "banmesh-admit", "banmesh-admit"
			if o.Ingress.Password, err = readPassword(ingressPassword); err != nil {
				return err
			}
			if o.Target.Password, err = readPassword(targetPassword); err != nil {
				return err
			}
			for _, text := range operators {
				id, err := ban.ParseOperator(text)
				if err != nil {
					return fmt.Errorf("--operator: %w", err)
				}
				o.Operators = append(o.Operators, id)
			}
			o.Log, o.Version = settings.Log{}.Logger(c.ErrOrStderr()), c.Root().Version
			s, err := broker.NewGateway(o)
			if err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(c.Context())
			if web != "" {
				l, err := net.Listen("tcp", web)
				if err != nil {
					return err
				}
				g.Go(func() error {
					return control.Serve(ctx, l, s.Metrics(), o.Log)
				})
			}
			g.Go(func() error { return s.Run(ctx) })
			return g.Wait()
		},
	}
	f := c.Flags()
	f.StringVar(&o.Network, "network", "", "the network")
	f.StringVar(&o.Ingress.URL, "from", "tcp://127.0.0.1:1884", "the open broker (tcp://, ssl:// or unix://)")
	f.StringVar(&o.Ingress.User, "from-user", "", "user name there")
	f.StringVar(&ingressPassword, "from-password-file", "", "file with the password there")
	f.StringVar(&o.Target.URL, "to", "tcp://127.0.0.1:1883", "the network's broker")
	f.StringVar(&o.Target.User, "to-user", "", "user name there")
	f.StringVar(&targetPassword, "to-password-file", "", "file with the password there")
	f.StringArrayVar(&operators, "operator", nil, "copy only this operator's messages; may be repeated")
	f.StringVar(&web, "metrics", "", "serve metrics on this address")
	return c
}

func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading a password: %w", err)
	}
	p := strings.TrimRight(string(b), "\r\n")
	if p == "" {
		return "", errors.New("reading a password: " + path + " is empty")
	}
	return p, nil
}
