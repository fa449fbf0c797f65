package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/natsindex"
)

// natsIndexes watches the NATS servers whose monitoring the configuration names.
type natsIndexes struct {
	clusters []*natsCluster
	read     func(context.Context, []string) []natsindex.Server
	log      *slog.Logger
}

// A natsCluster is one entry of brokers with its monitoring.
type natsCluster struct {
	addresses, monitors []string // of the same length

	mu      sync.Mutex
	servers []natsindex.Server // as they were read last; by address
}

// readIndexesEvery is how often the monitoring is read: a reading costs a server a
// few kilobytes.
const readIndexesEvery = time.Minute

func newNATSIndexes(log *slog.Logger) *natsIndexes {
	return &natsIndexes{read: natsindex.Read, log: log}
}

// add watches an entry of brokers. Its result is for
// [federation.Broker.Avoid]: nil where the entry names no monitoring.
func (n *natsIndexes) add(b config.Broker) (avoid func(address string) bool) {
	if len(b.Monitors) == 0 {
		return nil
	}
	c := &natsCluster{addresses: append([]string{b.URL}, b.Others...), monitors: b.Monitors}
	n.clusters = append(n.clusters, c)
	return c.lost
}

// lost says whether the server at an address hands out nothing new.
func (c *natsCluster) lost(address string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.servers {
		if i < len(c.addresses) && c.addresses[i] == address {
			return s.State == natsindex.Lost
		}
	}
	return false
}

// run reads the monitoring until ctx ends.
func (n *natsIndexes) run(ctx context.Context) error {
	if len(n.clusters) == 0 {
		return nil
	}
	again := time.NewTicker(readIndexesEvery)
	defer again.Stop()
	for {
		for _, c := range n.clusters {
			n.readOnce(ctx, c)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// readOnce reads one cluster's monitoring, and logs states that changed.
func (n *natsIndexes) readOnce(ctx context.Context, c *natsCluster) {
	servers := n.read(ctx, c.monitors)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	before := c.servers
	c.servers = servers
	c.mu.Unlock()
	for i, s := range servers {
		if i < len(before) && before[i].State == s.State {
			continue
		}
		level := slog.LevelInfo
		if s.State == natsindex.Lost {
			level = slog.LevelWarn
		}
		n.log.Log(ctx, level, "broker_index", "broker", c.addresses[i], "server", s.Name, "state", string(s.State), "holder", s.Holder, "why", s.Why)
	}
}

// warnings says which servers hand out nothing new, and where one server's
// death would do that to all.
func (n *natsIndexes) warnings() (list []control.Warning) {
	for _, c := range n.clusters {
		c.mu.Lock()
		servers := c.servers
		c.mu.Unlock()
		for i, s := range servers {
			if s.State == natsindex.Lost {
				list = append(list, api.IndexLost.Warn(fmt.Sprintf("%s (%s) acknowledges messages and hands none of them to newcomers: the server that fed its index of retained messages is down; this node uses another address of the cluster while one is better", c.addresses[i], s.Name), ""))
			}
		}
		if sole := natsindex.Sole(servers); sole != "" {
			list = append(list, api.IndexSole.Warn(fmt.Sprintf("%s feeds the index of retained messages of every server of the cluster at %s: should it die, newcomers see no new messages until it is back", sole, c.addresses[0]), ""))
		}
	}
	return list
}
