package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/gate"
)

// walletGate is the wallet gate, where it is configured or systemd handed its
// socket over.
type walletGate struct {
	a        *agent
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

func newWalletGate(a *agent) (*walletGate, error) {
	g := &walletGate{a: a}
	c := a.settings.Config().Gate
	files := activation.Files(true)
	handed := false
	for _, f := range files {
		handed = handed || f.Name() == gate.SocketName
	}
	if c.Enabled == nil && !handed || c.Enabled != nil && !*c.Enabled {
		return g, nil
	}
	path, err := gate.LoadPath(filepath.Join(a.o.StateDir, gateFile))
	if err != nil {
		return nil, err
	}
	o := gate.Options{Wallets: denied{a.table}, Log: a.log.With(slog.String("part", "gate")), Path: path, DryRun: c.DryRun, UpstreamAllow: c.ChainFailure == "allow"}
	if c.Chain != "" {
		if o.Upstream, err = url.Parse(c.Chain); err != nil {
			return nil, a.settings.Config().At("gate.chain", "%v", err)
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

// status answers GET /v1/gate.
func (g *walletGate) status(*http.Request) (any, error) {
	if g.gate == nil {
		return nil, &control.RefusedError{
			Code: control.CodeMissing, Text: "the wallet gate is not open",
			Hint: "set enabled = true in [gate] of agent.toml and restart the agent, or enable banmesh-agent-gate.socket",
		}
	}
	return gate.Status{URL: *g.url.Load(), Inherited: g.inherited, Counters: g.gate.Counters()}, nil
}

func (g *walletGate) run(ctx context.Context) error {
	if g.gate == nil {
		return nil
	}
	g.a.log.InfoContext(ctx, "wallet gate open", slog.String("address", g.listener.Addr().String()), slog.Bool("dry_run", g.a.settings.Config().Gate.DryRun))
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
