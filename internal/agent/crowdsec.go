package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/capi"
	"banmesh/internal/compat/serving"
)

// crowdsecFile keeps the installations that joined, below the state directory.
const crowdsecFile = "crowdsec.json"

// crowdsec answers CrowdSec itself, where [crowdsec] says so. Installations can
// be let in in any case.
type crowdsec struct {
	listen   string
	log      *slog.Logger
	machines *credentials.Machines
	server   *capi.Server

	mu sync.Mutex
	at string
}

func (a *agent) newCrowdSec() (*crowdsec, error) {
	machines, err := credentials.OpenMachines(filepath.Join(a.o.StateDir, crowdsecFile))
	if err != nil {
		return nil, err
	}
	conf := a.current().Config().CrowdSec
	c := &crowdsec{listen: conf.Listen, machines: machines, log: a.log.With(slog.String("part", "capi"))}
	topics := map[string]ban.Topic{}
	for scenario, topic := range conf.Scenarios {
		topics[scenario] = ban.Topic(topic)
	}
	c.server = capi.New(capi.Options{
		Table: a.table, Machines: machines, Scenarios: topics, Log: c.log, Now: a.now, Shared: a.shared,
		Take:     func(ctx context.Context, list []capi.Signal) error { return a.api.TakeSignals(ctx, list) },
		Observed: a.bouncers.isObserved, Recent: a.recent,
		NeverBan: func() (list []netip.Prefix) {
			for _, e := range a.guard.everything() {
				list = append(list, e.Prefix)
			}
			return list
		},
	})
	return c, nil
}

// run answers until ctx ends.
func (c *crowdsec) run(ctx context.Context) error {
	if c.listen == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.listen)
	if err != nil {
		return fmt.Errorf("answering CrowdSec: %w", err)
	}
	c.mu.Lock()
	c.at = l.Addr().String()
	c.mu.Unlock()
	c.log.InfoContext(ctx, "CrowdSec is answered", slog.String("address", c.Listen()))
	return serving.Serve(ctx, l, c.server, serving.Options{Log: c.log})
}

// Machines implements [api.CrowdSec].
func (c *crowdsec) Machines() *credentials.Machines { return c.machines }

// Listen implements [api.CrowdSec].
func (c *crowdsec) Listen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// Refused implements [api.CrowdSec].
func (c *crowdsec) Refused() serving.Refused { return c.server.Refused() }

// Clients implements [api.CrowdSec].
func (c *crowdsec) Clients() []capi.Status { return c.server.Clients() }
