package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/procnet"
	"banmesh/internal/settings"
	"banmesh/topics"
)

const (
	// portOwnerLook is how often it is looked who listens.
	portOwnerLook = 20 * time.Second
	// silentFor is how long a service may listen and none of its logs have a
	// line, before somebody is told.
	silentFor = 10 * time.Minute
)

// portOwners knows which users listen at the ports of topics that believe the
// journal's lines of those users alone: any user of the machine can run a program
// of the service's name, and only one holds its port.
type portOwners struct {
	settings func() *settings.Settings
	// restart has the detection ask anew.
	restart func(context.Context) error
	status  func() detect.Status
	listen  func() (map[uint16][]uint32, error) // testing; nil: the kernel's
	started time.Time
	now     func() time.Time
	log     *slog.Logger

	mu    sync.Mutex
	named map[ban.Topic][]uint32 // as the detection was told
}

// jails puts the users in the place of "_UID=port-owner" in the journal matches of
// jails, and leaves out such a match while nobody listens.
func (p *portOwners) jails(jails []detect.Jail) []detect.Jail {
	out := slices.Clone(jails)
	named := map[ban.Topic][]uint32{}
	for i, j := range out {
		if !asksOwner(j.Definition) {
			continue
		}
		owners := p.owners(j.Definition.Name)
		named[j.Definition.Name] = owners
		d, x := *j.Definition, *j.Definition.Detect
		x.Journal = nil
		for _, m := range j.Definition.Detect.Journal {
			if !strings.Contains(m, topics.PortOwner) {
				x.Journal = append(x.Journal, m)
				continue
			}
			for _, uid := range owners {
				x.Journal = append(x.Journal, strings.ReplaceAll(m, topics.PortOwner, "_UID="+strconv.FormatUint(uint64(uid), 10)))
			}
		}
		d.Detect = &x
		out[i].Definition = &d
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.named = named
	return out
}

func asksOwner(d *topics.Definition) bool {
	return d.Detect != nil && slices.ContainsFunc(d.Detect.Journal, func(m string) bool { return strings.Contains(m, topics.PortOwner) })
}

// owners gives the users that listen at a topic's TCP ports, sorted.
func (p *portOwners) owners(topic ban.Topic) (list []uint32) {
	t, ok := p.settings().Find(topic)
	if !ok {
		return nil
	}
	look := p.listen
	if look == nil {
		look = listeners
	}
	all, err := look()
	if err != nil {
		p.log.Warn("who listens is not known", slog.Any("error", err))
	}
	for _, port := range t.Scope.Ports {
		list = append(list, all[port]...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// run has the detection begin anew when other users listen.
func (p *portOwners) run(ctx context.Context) error {
	tick := time.NewTicker(portOwnerLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		p.mu.Lock()
		named := p.named
		p.mu.Unlock()
		for topic, before := range named {
			// One that is gone is restarting: its lines go on being believed.
			now := p.owners(topic)
			if len(now) == 0 || slices.Equal(now, before) {
				continue
			}
			p.log.InfoContext(ctx, "the journal's lines of other users are believed, who listen now", slog.String("topic", string(topic)), slog.Any("users", now))
			if err := p.restart(ctx); err != nil && ctx.Err() == nil {
				p.log.ErrorContext(ctx, "detection not restarted", slog.Any("error", err))
			}
			break
		}
	}
}

// warnings tells of services that listen while none of their logs has a line: the
// log lies elsewhere.
func (p *portOwners) warnings() (list []control.Warning) {
	up := p.now().Sub(p.started)
	if up < silentFor {
		return nil
	}
	lines := map[ban.Topic]uint64{}
	for _, x := range p.status().Sources {
		for _, l := range x.Logs {
			for _, t := range l.Topics {
				lines[t] += l.Count.Read
			}
		}
	}
	for _, j := range p.settings().Jails() {
		name := j.Definition.Name
		if !asksOwner(j.Definition) || lines[name] > 0 {
			continue
		}
		if owners := p.owners(name); len(owners) > 0 {
			list = append(list, api.LogSilent.Warn(
				fmt.Sprintf("%s: somebody listens at its port (user %d), and none of its logs had a line since the agent started", name, owners[0]),
				fmt.Sprintf("name the log in [topics.%s] of agent.toml: files, journal or docker; docs/livepeer.md", name)))
		}
	}
	return list
}

// listeners gives the users that listen on TCP, by port.
func listeners() (map[uint16][]uint32, error) {
	sockets, err := procnet.TCP("/")
	all := map[uint16][]uint32{}
	for _, x := range sockets {
		if x.State == procnet.Listening {
			all[x.Local.Port()] = append(all[x.Local.Port()], x.User)
		}
	}
	return all, err
}
