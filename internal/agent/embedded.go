package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/config"
	"banmesh/internal/keys"
	"banmesh/internal/settings"
)

// embeddedBytes is the default bound of the messages that the embedded broker retains.
const embeddedBytes = 8 << 20

// embeddedLimits keep the embedded broker small: it runs inside the agent, for
// this node and for a few that its operator knows. One of them may have seven
// eighths of it. A store that is larger, of a former limit, stays and takes no more.
func embeddedLimits(e config.EmbeddedBroker) broker.Limits {
	most := cmp.Or(e.MaxBytes, embeddedBytes)
	return broker.Limits{
		Connections: 64, PerAddress: 16, Connecting: 16,
		MaxQueued: 512 << 10, TotalQueued: embeddedBytes,
		TotalBytes: most, OperatorBytes: most / 8 * 7, FeedBytes: most / 8 * 7,
	}
}

// longestSocket is the longest path of a unix socket (unix(7)).
const longestSocket = 107

// wantsBroker says whether a configuration asks for the embedded broker: by
// name, by an address, or where no other broker is named and something is
// published or accepted.
func wantsBroker(next *settings.Settings) bool {
	conf := next.Config()
	e := conf.EmbeddedBroker
	switch {
	case e.Enabled != nil:
		return *e.Enabled
	case len(conf.Brokers) > 0:
		return false
	case e.Listen != "":
		return true
	}
	for _, t := range next.Topics() {
		if t.Publish || t.Subscribe {
			return true
		}
	}
	return false
}

// ErrEmbeddedBroker says that the broker that the agent runs itself cannot begin.
var ErrEmbeddedBroker = errors.New("opening the embedded broker")

// embed opens the broker. Without an address it listens on a socket that only
// this node's user may open. It admits only operators that are known here.
func (s *sharing) embed(ctx context.Context, e config.EmbeddedBroker) (url string, err error) {
	var b *broker.Broker
	open := func(l ...broker.Listener) (err error) {
		b, err = broker.New(broker.Options{
			Network: s.network, StateDir: filepath.Join(s.o.state, "broker"), Keys: true, Now: s.o.now,
			Log: s.o.log.With(slog.String("part", "broker")), Listeners: l, Limits: embeddedLimits(e),
			Operators: s.acquainted(s.o.settings()),
		})
		return err
	}
	socket := EmbeddedSocket(s.o.state)
	own := broker.Listener{Kind: broker.Unix, Address: socket, Mode: 0o600}
	switch {
	case e.Listen != "" && e.TLS:
		certificate, _, fault := keys.BrokerCertificate(s.o.state, s.o.now())
		if fault != nil {
			return "", fmt.Errorf("%w: %w", ErrEmbeddedBroker, fault)
		}
		if len(socket) > longestSocket {
			own = broker.Listener{Kind: broker.TCP, Address: "127.0.0.1:0"}
		} else {
			url = "unix://" + socket
		}
		err = open(own, broker.Listener{Kind: broker.TLS, Address: e.Listen, TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}})
	case e.Listen != "":
		err = open(broker.Listener{Kind: broker.TCP, Address: e.Listen})
	case len(socket) > longestSocket:
		s.o.log.InfoContext(ctx, "embedded broker on a free port, its socket's path is too long", slog.String("path", socket))
		err = open(broker.Listener{Kind: broker.TCP, Address: "127.0.0.1:0"})
	default:
		err = open(own)
		url = "unix://" + socket
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("%w: %w: another program listens on %s", ErrEmbeddedBroker, err, e.Listen)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrEmbeddedBroker, err)
	}
	if url == "" {
		url = "tcp://" + b.Addr().String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broker, s.opened = b, e
	return url, nil
}

// embedded gives the embedded broker, nil where there is none.
func (s *sharing) embedded() *broker.Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broker
}

// begin opens the embedded broker that a running node turns out to need: the
// session has waited for it since the start.
func (s *sharing) begin(ctx context.Context, next *settings.Settings) error {
	if s.begun == nil || s.embedded() != nil || !wantsBroker(next) {
		return nil
	}
	if _, err := s.embed(ctx, next.Config().EmbeddedBroker); err != nil {
		return err
	}
	close(s.begun)
	return nil
}

// runEmbedded holds the embedded broker, from the start or once it is begun.
func (s *sharing) runEmbedded(ctx context.Context) error {
	if s.embedded() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-s.begun: // never where it is nil
		}
	}
	s.mu.Lock()
	b := s.broker
	s.served = true
	s.mu.Unlock()
	return b.Run(ctx)
}

// laterURL is where a node that names no broker will have its own, once
// something is shared; "" where it may not have one, or where that is not known
// before it listens.
func laterURL(state string, now *settings.Settings) string {
	conf, socket := now.Config(), EmbeddedSocket(state)
	e := conf.EmbeddedBroker
	if len(conf.Brokers) > 0 || e.Enabled != nil && !*e.Enabled || e.Listen != "" || len(socket) > longestSocket {
		return ""
	}
	return "unix://" + socket
}

// EmbeddedSocket gives the embedded broker's socket where its configuration
// names no address.
func EmbeddedSocket(state string) string { return filepath.Join(state, "mqtt.sock") }

// acquainted gives the operators that the embedded broker serves: our own, and
// those that the settings name.
func (s *sharing) acquainted(next *settings.Settings) []ban.Operator {
	list := []ban.Operator{s.identity.Operator()}
	for _, p := range next.Peers() {
		list = append(list, p.Operator)
	}
	for _, t := range next.Topics() {
		list = append(list, next.Policy().Operators(t.Topic)...)
	}
	return list
}
