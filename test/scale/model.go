package main

import (
	"fmt"
	"io"
	"math"
)

// A community is who uses the brokers. Every agent follows as many operators as
// it may, in all topics.
type community struct {
	agents      int
	perOperator int     // agents of one operator
	follow      int     // operators that one agent follows at most
	topics      int     // of one operator
	live        int     // bans in force in one feed
	perDay      float64 // bans of one operator in a day, a delta and a head each
}

func (c community) operators() float64 { return math.Max(1, float64(c.agents)/float64(c.perOperator)) }

// followed is how many operators an agent hears.
func (c community) followed() float64 { return math.Min(c.operators(), float64(c.follow)) }

// deliveries is how many publications a second reach an agent.
func (c community) deliveries() float64 { return c.followed() * c.perDay * 2 / 86400 }

// joinBytes is everything that an agent asks for when it comes for the first time.
func (c community) joinBytes() float64 {
	return c.followed() * float64(c.topics) * float64(c.live) * banBytes
}

// A machine is one server.
type machine struct {
	cores       float64
	memory      float64 // bytes
	network     float64 // bits a second, outwards
	connections float64
}

// A deployment is servers and how they share the agents.
type deployment struct {
	name    string
	engine  engine
	servers float64
	// share is the part of all agents that one server carries, and copies the
	// further servers to which it hands every publication.
	share  float64
	copies float64
}

func deployments() []deployment {
	return []deployment{
		{name: "one broker", engine: ours, servers: 1, share: 1},
		// Every agent uses both: each carries all of them, so that one may die.
		{name: "two brokers", engine: ours, servers: 2, share: 1},
		{name: "a NATS cluster of three", engine: nats, servers: 3, share: 1.0 / 3, copies: 2},
		{name: "four bridged mosquittos", engine: mosquitto, servers: 4, share: 1.0 / 4, copies: 3},
	}
}

// A load is the part of a server's resource that is used; 1 is all.
type load struct {
	resource string
	used     float64
	amount   string
}

// loads gives the resources of one server. CPU and network are asked for twice:
// while bans come, and while everybody comes back after a restart.
func (d deployment) loads(c community, m machine) []load {
	agents := float64(c.agents) * d.share
	cores := m.cores
	if d.engine.threads > 0 {
		cores = math.Min(cores, d.engine.threads)
	}
	published := c.operators() * c.perDay * 2 / 86400
	rate := agents*c.deliveries() + d.copies*published
	logins := agents / loginTime
	again := c.joinBytes()
	if d.engine.index {
		again *= returnShare
	}
	// A joiner's bytes come in large messages: the network is the cost.
	state := c.operators() * float64(c.topics) * (float64(c.live)*banBytes + feedOverhead)
	memory := agents*(d.engine.connection+c.followed()*d.engine.filter) + state
	return []load{
		{"cpu", rate * d.engine.delivery / cores, fmt.Sprintf("%.0f deliveries/s", rate)},
		{"cpu of a restart", logins * d.engine.login / cores, fmt.Sprintf("%.0f logins/s", logins)},
		{"network", rate * deliveryBytes * 8 / m.network, fmt.Sprintf("%.1f Mbit/s", rate*deliveryBytes*8/1e6)},
		{"network of a restart", logins * again * 8 / m.network, fmt.Sprintf("%.1f Mbit/s", logins*again*8/1e6)},
		{"memory", memory / m.memory, fmt.Sprintf("%.0f MB", memory/1e6)},
		{"connections", agents / m.connections, fmt.Sprintf("%.0f", agents)},
	}
}

// first gives the resource that is used most.
func first(all []load) load {
	most := all[0]
	for _, l := range all[1:] {
		if l.used > most.used {
			most = l
		}
	}
	return most
}

// largest gives how many agents a deployment carries before something is full.
func (d deployment) largest(c community, m machine) int {
	low, high := 1, 10_000_000
	for low < high {
		c.agents = (low + high + 1) / 2
		if first(d.loads(c, m)).used <= 1 {
			low = c.agents
		} else {
			high = c.agents - 1
		}
	}
	return low
}

// report prints every deployment at every size.
func report(w io.Writer, c community, m machine) {
	fmt.Fprintf(w, "Each server: %.0f cores, %.1f GB, %.0f Mbit/s, %.0f connections. An operator has %d agents, %d topics of %d bans, and makes %.0f bans a day; an agent follows %d operators at most.\n",
		m.cores, m.memory/1e9, m.network/1e6, m.connections, c.perOperator, c.topics, c.live, c.perDay, c.follow)
	fmt.Fprintf(w, "\n| servers | agents | breaks first | used | cpu | cpu of a restart | network | network of a restart | memory | connections |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, d := range deployments() {
		for _, n := range []int{1_000, 10_000, 100_000} {
			c.agents = n
			all := d.loads(c, m)
			worst := first(all)
			verdict := worst.resource
			if worst.used <= 1 {
				verdict = "nothing; " + worst.resource + " is next"
			}
			fmt.Fprintf(w, "| %s | %d | %s | %.0f %% |", d.name, n, verdict, 100*worst.used)
			for _, l := range all {
				fmt.Fprintf(w, " %.0f %%: %s |", 100*l.used, l.amount)
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintln(w)
	for _, d := range deployments() {
		n := d.largest(c, m)
		c := c
		c.agents = n + 1
		fmt.Fprintf(w, "%s (%s): up to %d agents; then %s is full.\n", d.name, d.engine.name, n, first(d.loads(c, m)).resource)
	}
}
