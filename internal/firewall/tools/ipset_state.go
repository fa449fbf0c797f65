package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// ProbeIPSet says whether an [IPSet] can enforce here: whether its tools are
// installed and this process may use them. It changes nothing.
func ProbeIPSet(ctx context.Context, legacy bool) firewall.Capability {
	// iptables asks ipset about its sets over a raw socket.
	for name, c := range map[string]uint{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW} {
		if !firewall.HasCapability(os.Getpid(), c) {
			return firewall.Capability{
				Reason: "this process lacks " + name + ", which iptables and ipset need",
				Fix:    fmt.Sprintf("run the agent as root, or `systemctl edit banmesh-agent` and add under [Service] AmbientCapabilities=%[1]s and CapabilityBoundingSet=%[1]s", name),
			}
		}
	}
	s := NewIPSet(Options{}, legacy)
	tools := [][]string{{"ipset", "list", "-name"}}
	for _, f := range families {
		tools = append(tools, []string{s.tool(f.iptables) + "-save", "-t", "raw"})
	}
	for _, argv := range tools {
		if _, err := exec.LookPath(argv[0]); err != nil {
			return firewall.Capability{Reason: argv[0] + " is not installed", Fix: "install it; on Debian apt install ipset iptables"}
		}
		if _, err := s.output(ctx, argv[0], argv[1:]...); err != nil {
			return firewall.Capability{Reason: err.Error(), Fix: "run the agent as root"}
		}
	}
	return firewall.Capability{Enforce: true}
}

// InspectIPSet sums up the sets that an [IPSet] of this table left or holds. topics are those whose counters are wanted. It changes nothing.
func InspectIPSet(ctx context.Context, table string, legacy bool, topics []ban.Topic) (firewall.Summary, error) {
	sum := firewall.Summary{Table: table}
	s, err := ipsetOf(table, legacy, topics)
	if err != nil {
		return sum, err
	}
	text, err := s.output(ctx, "ipset", "list", "-terse")
	if err != nil {
		return sum, err
	}
	holds := []firewall.MapSummary{
		{Name: "4", Holds: "IPv4 addresses", Bans: true},
		{Name: "4n", Holds: "IPv4 prefixes", Bans: true},
		{Name: "6", Holds: "IPv6 addresses", Bans: true},
		{Name: "6n", Holds: "IPv6 prefixes", Bans: true},
		{Name: "never-4", Holds: "IPv4 ranges never banned"},
		{Name: "never-6", Holds: "IPv6 ranges never banned"},
	}
	kind := -1
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Name":
			kind = -1
			if m := s.pattern().FindStringSubmatch(value); m != nil {
				sum.Present = true
				for i, h := range holds {
					if h.Name == m[1] || h.Name == m[2] {
						kind = i
					}
				}
			}
		case "Number of entries":
			n, err := strconv.ParseUint(value, 10, 32)
			if kind >= 0 && err == nil {
				holds[kind].Elements, holds[kind].Known = holds[kind].Elements+uint32(n), true
			}
		}
	}
	if !sum.Present {
		return sum, nil
	}
	for _, h := range holds {
		h.Name = s.config.Table + "-*-" + h.Name
		sum.Maps = append(sum.Maps, h)
	}
	counters, err := s.Counters(ctx)
	sum.Counters = make(map[string]firewall.Counter, len(counters))
	for t, c := range counters {
		sum.Counters[string(t)] = c
	}
	return sum, err
}

// RemoveIPSet takes every set and rule of an [IPSet] away. It refuses while an
// agent enforces with them.
func RemoveIPSet(ctx context.Context, table string, legacy bool) error {
	s, err := ipsetOf(table, legacy, nil)
	if err != nil {
		return err
	}
	lock, err := firewall.TakeLock(s.config.Table)
	if err != nil {
		return err
	}
	defer firewall.Unlock(lock)
	errs := []error{s.leave(ctx)}
	for _, f := range families {
		t := s.tool(f.iptables)
		if s.run(ctx, nil, t, "-t", "raw", "-S", s.chainName()) == nil {
			errs = append(errs, s.run(ctx, nil, t, "-t", "raw", "-F", s.chainName()), s.run(ctx, nil, t, "-t", "raw", "-X", s.chainName()))
		}
	}
	out, err := s.output(ctx, "ipset", "list", "-name")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	var b strings.Builder
	for _, name := range strings.Fields(out) {
		if s.pattern().MatchString(name) {
			fmt.Fprintf(&b, "destroy %s\n", name)
		}
	}
	return errors.Join(append(errs, s.run(ctx, []byte(b.String()), "ipset", "restore"))...)
}

// PanicIPSet ends the enforcement of an [IPSet] at once. The switch, a file,
// keeps a running agent from beginning again.
func PanicIPSet(ctx context.Context, table string, legacy bool) error {
	s, err := ipsetOf(table, legacy, nil)
	if err != nil {
		return err
	}
	return s.leave(ctx)
}

// ipsetOf gives an enforcer that is only asked about its sets.
func ipsetOf(table string, legacy bool, topics []ban.Topic) (*IPSet, error) {
	c := firewall.Config{Table: table}
	for _, t := range topics {
		c.Scopes = append(c.Scopes, firewall.Scope{Topic: t})
	}
	c, err := c.Normal()
	if err != nil {
		return nil, err
	}
	s := NewIPSet(Options{}, legacy)
	s.config, s.ready = c, true
	return s, nil
}

// pattern finds our sets: a topic's with its suffix as the first group, the
// never-ban list's with the second.
func (s *IPSet) pattern() *regexp.Regexp { return ownSets(s.config.Table) }

func ownSets(table string) *regexp.Regexp {
	return regexp.MustCompile("^" + regexp.QuoteMeta(table) + "-(?:[0-9a-f]{8}-([46]n?)|(never-[46]))(?:-t)?$")
}
