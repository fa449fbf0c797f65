package lapi

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
)

// maxClients bounds the clients that are remembered, a key and address each.
const maxClients = 4096

// identity is a bouncer at an address: each has its own place in the stream.
type identity struct {
	name string
	from netip.Addr
}

// Status describes a client for people.
type Status struct {
	Name    string
	From    netip.Addr
	Kind    string // of its User-Agent; "" before its first request
	Version string
	Topics  []ban.Topic
	Pulled  time.Time // the last answered pull, zero for none
	Told    int       // decisions of the last full answer
	// Dropped is the traffic that it reported as refused, by the origin that it
	// was told with the decision.
	Dropped map[string]usage.Dropped
	// Flat says that the program cuts ranges to their first address or passes
	// them over, so that only small ones reach it, one address after the other.
	Flat bool
}

// client is a [Status] and the bouncer's place in the stream.
type client struct {
	Status
	// seq is the newest event when its last answered pull began, and started
	// that it was given everything once.
	seq           uint64
	started       bool
	pulled, pause time.Duration // of the process; the longest between two pulls
}

// clients remembers who asks.
type clients struct {
	mu   sync.Mutex
	list map[identity]*client
}

// of gives the client, made where it is new. The one that was silent longest
// makes room: it is given everything when it comes back.
func (c *clients) of(id identity, userAgent string, topics []ban.Topic, now time.Duration) *client {
	x, ok := c.list[id]
	if !ok {
		serving.MakeRoom(c.list, maxClients, func(x *client) time.Duration { return x.pulled })
		x = &client{Status: Status{Name: id.name, From: id.from, Dropped: map[string]usage.Dropped{}}, pulled: now}
		c.list[id] = x
	}
	x.Topics = topics
	x.Kind, x.Version = kindOf(userAgent)
	x.Flat = cutsRanges(x.Kind)
	return x
}

// kindOf reads a User-Agent, kind/version with one slash.
func kindOf(userAgent string) (kind, version string) {
	kind, version, ok := strings.Cut(serving.Plain(userAgent), "/")
	if !ok || kind == "" || strings.ContainsAny(version, "/ ") {
		return strings.Fields(kind + " unknown")[0], "N/A"
	}
	return kind, version
}

// cutsRanges knows the programs that enforce a range for its first address
// only, or not at all: cs-firewall-bouncer with nftables and Traefik's plugin
// in stream mode. Which mode they are in is not told.
func cutsRanges(kind string) bool {
	return kind == "crowdsec-firewall-bouncer" || kind == "Crowdsec-Bouncer-Traefik-Plugin"
}

// status lists the clients, by name and address.
func (c *clients) status() (list []Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.list {
		s := x.Status
		s.Dropped = maps.Clone(s.Dropped)
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Or(strings.Compare(a.Name, b.Name), a.From.Compare(b.From)) })
	return list
}
