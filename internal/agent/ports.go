package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/procnet"
	"banmesh/internal/settings"
)

// servedPorts finds out whether a service listens where its topic says. The
// kernel remembers connections with a topic's ports, so a line about another
// port is neither confirmed nor denied.
type servedPorts struct {
	sockets func() ([]procnet.Socket, error)
	now     func() time.Time

	mu    sync.Mutex
	due   time.Time // when the sockets are to be read again
	list  []procnet.Socket
	stray map[ban.Topic]strayPort
}

// A strayPort is where a topic's lines come from that its ports do not explain.
type strayPort struct {
	port  uint16 // of the service, 0 where nothing listens at the topic's
	lines int
	last  time.Time
}

const (
	// socketsRest keeps reading the table of sockets to a twentieth of the time.
	socketsRest = 20
	// strayFor is how long a topic's wrong ports are told of.
	strayFor = time.Hour
)

// elsewhere says that a line's connection is with a port that the topic does not
// name: this machine has the very connection, or nothing listens at the topic's
// ports and nobody was seen there (any), as would be with a container's.
func (p *servedPorts) elsewhere(t settings.Topic, from netip.AddrPort, any bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed, known := p.read()
	if !known {
		return false
	}
	port, found, served := uint16(0), false, any
	peer := netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	for _, s := range listed {
		named := slices.Contains(t.Scope.Ports, s.Local.Port())
		if s.State == procnet.Listening {
			served = served || named && !s.Local.Addr().IsLoopback()
		} else if from.Port() != 0 && s.Remote == peer && !named {
			port, found = s.Local.Port(), true
		}
	}
	if !found && served {
		return false
	}
	x := p.stray[t.Topic]
	x.lines++
	x.last = p.now()
	if port != 0 || x.port == 0 {
		x.port = port
	}
	p.stray[t.Topic] = x
	return true
}

// read gives the sockets, from a moment ago at most. The caller holds the lock.
func (p *servedPorts) read() ([]procnet.Socket, bool) {
	began := time.Now()
	if began.Before(p.due) {
		return p.list, true
	}
	list, err := p.sockets()
	p.due, p.list = time.Now().Add(socketsRest*time.Since(began)), list
	return list, err == nil
}

// warnings names the topics whose service is at other ports.
func (p *servedPorts) warnings(s *settings.Settings) (list []control.Warning) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range s.Topics() {
		x, ok := p.stray[t.Topic]
		if !ok || p.now().Sub(x.last) > strayFor || !t.Scope.Remembers() {
			continue
		}
		ports := make([]string, 0, len(t.Scope.Ports)+1)
		for _, port := range t.Scope.Ports {
			ports = append(ports, strconv.Itoa(int(port)))
		}
		where, fix := "nothing on this machine listens there", "those of the service"
		if x.port != 0 {
			if slices.Contains(t.Scope.Ports, x.port) {
				continue // mended meanwhile
			}
			where = fmt.Sprintf("the service is at port %d", x.port)
			fix = strings.Join(append(slices.Clone(ports), strconv.Itoa(int(x.port))), ", ")
		}
		list = append(list, api.StrayPort.Warn(
			fmt.Sprintf("%s: a ban closes ports %s, and %s: %d log lines count here and are weak to others", t.Topic, strings.Join(ports, ", "), where, x.lines),
			fmt.Sprintf("ports = [%s] in [topics.%s]", fix, t.Topic)))
	}
	return list
}
