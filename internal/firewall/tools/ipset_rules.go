package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// rules makes the sets and the chains.
func (s *IPSet) rules(ctx context.Context) error {
	// A set that is there stays, of whatever size: the next reload swaps it for
	// one of ours.
	there, err := s.sets(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	create := func(name, kind, options string) {
		if _, ok := there[name]; !ok {
			fmt.Fprintf(&b, "create %s %s %s\n", name, kind, options)
		}
	}
	for _, x := range s.config.Scopes {
		for i, f := range families {
			options := fmt.Sprintf("family %s timeout 0 maxelem %d", f.family, s.config.Cap)
			create(s.setName(x.Topic, i == 0, true), "hash:ip", options)
			create(s.setName(x.Topic, i == 0, false), "hash:net", options)
		}
	}
	for i, f := range families {
		name := s.neverName(f.suffix)
		options := fmt.Sprintf("family %s maxelem %d", f.family, 2*firewall.MaxNever)
		create(name, "hash:net", options)
		fmt.Fprintf(&b, "create %s-t hash:net %s\nflush %s-t\n", name, options, name)
		for _, p := range s.config.Never {
			if p.Addr().Is4() != (i == 0) {
				continue
			}
			for _, q := range halves(p) {
				fmt.Fprintf(&b, "add %s-t %s\n", name, q)
			}
		}
		fmt.Fprintf(&b, "swap %s %s-t\ndestroy %s-t\n", name, name, name)
	}
	if err := s.run(ctx, b.Bytes(), "ipset", "-exist", "restore"); err != nil {
		return err
	}
	if s.off {
		return s.leave(ctx)
	}
	for i, f := range families {
		b.Reset()
		fmt.Fprintf(&b, "*raw\n:%s - [0:0]\n", s.chainName())
		for _, r := range s.chainRules(i == 0) {
			fmt.Fprintln(&b, r)
		}
		b.WriteString("COMMIT\n")
		if err := s.run(ctx, b.Bytes(), s.tool(f.iptables)+"-restore", "--noflush"); err != nil {
			return err
		}
		if s.run(ctx, nil, s.tool(f.iptables), "-t", "raw", "-C", "PREROUTING", "-j", s.chainName()) != nil {
			if err := s.run(ctx, nil, s.tool(f.iptables), "-t", "raw", "-I", "PREROUTING", "1", "-j", s.chainName()); err != nil {
				return err
			}
		}
	}
	return nil
}

// leave takes the jump to our chain out, so that nothing is enforced.
func (s *IPSet) leave(ctx context.Context) error {
	var errs []error
	for _, f := range families {
		out, err := s.output(ctx, s.tool(f.iptables)+"-save", "-t", "raw")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for line := range strings.Lines(out) {
			if strings.TrimSpace(line) == "-A PREROUTING -j "+s.chainName() {
				errs = append(errs, s.run(ctx, nil, s.tool(f.iptables), "-t", "raw", "-D", "PREROUTING", "-j", s.chainName()))
			}
		}
	}
	return errors.Join(errs...)
}

// chainRules gives our chain as iptables-save prints it.
func (s *IPSet) chainRules(four bool) []string {
	suffix := "6"
	if four {
		suffix = "4"
	}
	head := "-A " + s.chainName() + " "
	out := []string{head + "-i lo -j RETURN", head + "-m set --match-set " + s.neverName(suffix) + " src -j RETURN"}
	for _, x := range s.config.Scopes {
		target := " -j DROP"
		if x.Observe {
			target = ""
		}
		for _, host := range []bool{true, false} {
			match := "-m set --match-set " + s.setName(x.Topic, four, host) + " src"
			switch {
			case x.All, len(x.Protocols) == 0:
				out = append(out, head+match+target)
			case len(x.Ports) == 0:
				for _, p := range x.Protocols {
					out = append(out, head+"-p "+p+" "+match+target)
				}
			default:
				for _, p := range x.Protocols {
					for chunk := range slices.Chunk(x.Ports, multiportMost) {
						ports := make([]string, len(chunk))
						for i, port := range chunk {
							ports[i] = strconv.Itoa(int(port))
						}
						out = append(out, head+"-p "+p+" "+match+" -m multiport --dports "+strings.Join(ports, ",")+target)
					}
				}
			}
		}
	}
	return out
}

func (s *IPSet) tool(name string) string {
	if s.legacy {
		return name + "-legacy"
	}
	return name
}

// halves splits the whole address space, which hash:net cannot hold.
func halves(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	low := netip.PrefixFrom(p.Addr(), 1)
	return []netip.Prefix{low, netip.PrefixFrom(desired.LastOf(low).Next(), 1)}
}
