package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/export"
	"banmesh/internal/gate"
)

// walletGate is the wallet gate, where it is configured or systemd handed its
// socket over.
type walletGate struct {
	log      *slog.Logger
	dryRun   bool
	gate     *gate.Gate
	listener net.Listener
	// inherited says that systemd holds the socket.
	inherited bool
	url       atomic.Pointer[string]
}

// defaultGate is the gate's address: loopback only, beside go-livepeer's own
// command-line port 7935.
const defaultGate = "127.0.0.1:7936"

// gateFile keeps the secret path of the gate's URL.
const gateFile = "gate.path"

// newWalletGate opens the gate; state is the state directory.
func newWalletGate(conf *config.Loaded, table *export.Table, state string, log *slog.Logger) (*walletGate, error) {
	c := conf.Gate
	g := &walletGate{log: log.With(slog.String("part", "gate")), dryRun: c.DryRun}
	files := activation.Files(true)
	handed := false
	for _, f := range files {
		handed = handed || f.Name() == gate.SocketName
	}
	if c.Enabled == nil && !handed || c.Enabled != nil && !*c.Enabled {
		return g, nil
	}
	path, err := gate.LoadPath(filepath.Join(state, gateFile))
	if err != nil {
		return nil, err
	}
	o := gate.Options{Wallets: denied{table}, Log: g.log, Path: path, DryRun: c.DryRun, UpstreamAllow: c.ChainFailure == "allow"}
	if c.Chain != "" {
		if o.Upstream, err = url.Parse(c.Chain); err != nil {
			return nil, conf.At("gate.chain", "%v", err)
		}
	}
	if g.gate, err = gate.New(o); err != nil {
		return nil, err
	}
	g.listener, g.inherited, err = listenGate(c, files)
	if err != nil {
		return nil, err
	}
	u := g.gate.URL(g.listener)
	g.url.Store(&u)
	return g, nil
}

func listenGate(c config.Gate, files []*os.File) (l net.Listener, inherited bool, err error) {
	return gate.Listen(cmp.Or(c.Listen, defaultGate), files)
}

// status gives the gate's state, false where none is open.
func (g *walletGate) status() (gate.Status, bool) {
	if g.gate == nil {
		return gate.Status{}, false
	}
	return gate.Status{URL: *g.url.Load(), Inherited: g.inherited, Counters: g.gate.Counters()}, true
}

// close lets the listener go of a gate that never ran.
func (g *walletGate) close() error {
	if g.listener == nil {
		return nil
	}
	if err := g.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (g *walletGate) run(ctx context.Context) error {
	if g.gate == nil {
		return nil
	}
	g.log.InfoContext(ctx, "wallet gate open", slog.String("address", g.listener.Addr().String()), slog.Bool("dry_run", g.dryRun))
	if err := g.gate.Run(ctx, g.listener); err != nil {
		return fmt.Errorf("the wallet gate: %w", err)
	}
	return nil
}

// denied answers from the table of bans in force.
type denied struct{ table *export.Table }

// Denied implements [gate.Wallets].
func (d denied) Denied(w [20]byte) (gate.Denial, bool) {
	t, err := ban.TargetOfWallet(w)
	if err != nil {
		return gate.Denial{}, false
	}
	found := d.table.Check(t)
	if len(found) == 0 {
		return gate.Denial{}, false
	}
	return gate.Denial{Topic: found[0].Topic, Class: found[0].Class, Until: found[0].Until}, true
}
