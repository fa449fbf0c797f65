package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"banmesh/internal/broker/settings"
)

var (
	usual  = community{perOperator: 2, follow: 1000, topics: 10, live: 40, perDay: 100}
	server = machine{cores: 4, memory: 8e9, network: 1e9, connections: 10_000}
)

// A thousand agents of a thousand operators fit one broker, within the memory
// that docs/scale.md promises.
func TestAThousandAgentsFitOneBroker(t *testing.T) {
	t.Parallel()
	c := usual
	c.agents, c.perOperator = 1000, 1
	for _, l := range deployments()[0].loads(c, server) {
		if l.used > 1 {
			t.Errorf("%s is full: %s", l.resource, l.amount)
		}
		if l.resource == "memory" && l.used*server.memory > 1.2e9 {
			t.Errorf("memory: %s", l.amount)
		}
	}
}

// More agents never use less of anything, and the largest community is the
// last that fits.
func TestLoadsGrowWithAgentsAndTheLargestIsTheLastThatFits(t *testing.T) {
	t.Parallel()
	for _, d := range deployments() {
		last := make([]float64, 6)
		for _, n := range []int{10, 100, 1000, 10_000, 100_000} {
			c := usual
			c.agents = n
			for i, l := range d.loads(c, server) {
				if l.used < last[i] {
					t.Errorf("%s: %d agents use less %s", d.name, n, l.resource)
				}
				last[i] = l.used
			}
		}
		c := usual
		c.agents = d.largest(usual, server)
		if first(d.loads(c, server)).used > 1 {
			t.Errorf("%s: %d agents do not fit", d.name, c.agents)
		}
		if c.agents++; first(d.loads(c, server)).used <= 1 {
			t.Errorf("%s: %d agents fit, too", d.name, c.agents)
		}
	}
}

// Two brokers are for availability: each carries everybody.
func TestTwoBrokersCarryNoMoreThanOne(t *testing.T) {
	t.Parallel()
	all := deployments()
	if one, two := all[0].largest(usual, server), all[1].largest(usual, server); one != two {
		t.Errorf("one carries %d, two %d", one, two)
	}
}

// docs/scale.md has the report of this model, not of an older one.
func TestThePageHasTheReport(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	report(&want, usual, server)
	if !strings.Contains(string(page), want.String()) {
		t.Errorf("docs/scale.md is not up to date: `make sim-scale` prints\n%s", want.String())
	}
}

// The settings that the page names for a large machine are ones that the broker
// takes, and the community of 100,000 agents fits it.
func TestTheLargeMachineOfThePageIsSound(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "```toml\n")
	text, _, _ = strings.Cut(text, "```")
	f, err := settings.Parse("broker.toml", []byte(text))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	o, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	large := machine{cores: 16, memory: 48e9, network: 1e10, connections: float64(o.Limits.Connections)}
	if n := deployments()[0].largest(usual, large); n < 100_000 {
		t.Errorf("it carries %d agents", n)
	}
}
