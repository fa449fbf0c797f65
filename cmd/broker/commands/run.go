package commands

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"banmesh/internal/broker"
	"banmesh/internal/broker/settings"
	"banmesh/internal/cli"
	"banmesh/internal/control"
)

func newRunCommand(p *paths) *cobra.Command {
	var network, state, listen string
	var open bool
	var deny []string
	c := &cobra.Command{
		Use:   "run",
		Short: "Serve until a signal comes",
		Long: `Serve until SIGINT or SIGTERM, then drain: no new clients, what was admitted is made
durable, clients are told to go elsewhere. A second signal cuts that short. SIGHUP changes
nothing: renewed certificates are read by themselves, the rest at a restart.

Without a configuration file it serves plain MQTT on 127.0.0.1:1883 to everybody on this
machine and keeps its state in memory.

--open serves as any MQTT server would: every topic and payload, sessions, wills and QoS 2,
without admission. It is for private networks, for the ingress of ` + "`broker admit`" + ` and for
conformance suites.
` + exitHelp,
		Example: "  broker run\n  broker run --config /etc/banmesh-broker/broker.toml\n  broker run --open --listen 127.0.0.1:1884 --deny-read nosubscribe",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := p.read(c)
			if err != nil {
				return err
			}
			if network != "" {
				f.Network = network
			}
			if state != "" {
				f.StateDir = state
			}
			if listen != "" {
				f.Listeners = []settings.Listener{{Kind: "tcp", Address: listen}}
			}
			f.Open = f.Open || open
			f.DenyRead = append(f.DenyRead, deny...)
			return serve(c, p, f)
		},
	}
	c.Flags().StringVar(&network, "network", "", "serve this network only")
	c.Flags().StringVar(&state, "state-dir", "", "keep retained messages in this directory")
	c.Flags().StringVar(&listen, "listen", "", "serve plain MQTT on this address, in place of the configured listeners")
	c.Flags().BoolVar(&open, "open", false, "admit every topic and payload, signed or not")
	c.Flags().StringArrayVar(&deny, "deny-read", nil, "refuse subscriptions to exactly this filter; may be repeated")
	return c
}

// collectAt is the heap's growth between collections, in percent: most of a
// connection's memory is stack, which a smaller heap target returns sooner.
// Measured: 37 MB for 1,000 connections instead of 42, at no cost in speed.
const collectAt = 50

func serve(c *cobra.Command, p *paths, f *settings.File) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	ctx, again, stop := cli.Hangup(c.Context())
	defer stop()
	o, err := f.Options()
	if err != nil {
		return err
	}
	log := f.Log.Logger(c.ErrOrStderr())
	o.Log, o.Version = log, c.Root().Version
	sockets := control.OpenSockets()
	defer func() { sockets.Close(err != nil && c.Context().Err() == nil) }()
	b, err := broker.New(o)
	if err != nil {
		return err
	}
	socket, err := sockets.Listen("control", p.socket, control.ControlMode)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	var web net.Listener
	if f.HTTP.Listen != "" {
		if web, err = net.Listen("tcp", f.HTTP.Listen); err != nil {
			return errors.Join(fmt.Errorf("listening for HTTP: %w", err), socket.Close(), b.Close())
		}
	}
	s := b.Status()
	fmt.Fprintf(c.ErrOrStderr(), "broker: serving %s on %s; Ctrl-C stops it\n", networkText(s.Network), strings.Join(s.Listeners, ", "))
	if s.Open {
		log.Warn("this broker is open: it admits every topic and payload, signed or not; for private networks only")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-again:
				log.Info("a renewed certificate is read by itself; restart the broker for anything else in the configuration")
			}
		}
	})
	g.Go(func() error { return b.Run(ctx) })
	g.Go(func() error { return control.Serve(ctx, socket, commands(b), log) })
	if web != nil {
		g.Go(func() error { return control.Serve(ctx, web, b.Public(), log) })
	}
	g.Go(func() error { return b.TellSystemd(ctx) })
	return g.Wait()
}

func networkText(name string) string {
	if name == "" {
		return "every network"
	}
	return "network " + name
}
