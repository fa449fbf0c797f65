package firewall

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"banmesh/internal/ban"
)

// A Banaction is the effect of one of fail2ban's netfilter actions, as far as it
// matters here: all of them block an address, on some ports or on all.
type Banaction struct {
	AllPorts bool
	// Port and Protocol are the action's own arguments, empty when the jail's
	// count.
	Port     string
	Protocol string
}

// ErrBanaction says that an action is not one of netfilter's.
var ErrBanaction = errors.New("not a netfilter action of fail2ban; use a hook for it")

// banactions maps the actions of fail2ban 1.0's action.d that block by
// netfilter, or by routes, to whether they block all ports. An action that has
// both forms says it by its type argument.
var banactions = map[string]bool{
	"nftables": false, "nftables-multiport": false, "nftables-allports": true,
	"iptables": false, "iptables-multiport": false, "iptables-multiport-log": false, "iptables-new": false, "iptables-allports": true,
	"iptables-ipset": false, "iptables-ipset-proto4": false, "iptables-ipset-proto6": false, "iptables-ipset-proto6-allports": true,
	"iptables-xt_recent-echo": true,
	"firewallcmd-new":         false, "firewallcmd-multiport": false, "firewallcmd-ipset": false, "firewallcmd-allports": true,
	"firewallcmd-rich-rules": false, "firewallcmd-rich-logging": false,
	"ufw": true, "shorewall": true, "shorewall-ipset-proto6": true, "route": true,
}

// maxBanaction bounds the text of an action.
const maxBanaction = 1_024

// ParseBanaction reads a banaction as jail.conf has it, substitutions done:
// "nftables-multiport", "iptables[type=allports]", "nftables[port=\"80,443\"]".
func ParseBanaction(s string) (Banaction, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxBanaction {
		return Banaction{}, fmt.Errorf("an action of %d bytes: %w", len(s), ErrBanaction)
	}
	name, rest, hasArguments := strings.Cut(s, "[")
	all, ok := banactions[strings.TrimSpace(name)]
	if !ok {
		return Banaction{}, fmt.Errorf("action %.60q: %w", name, ErrBanaction)
	}
	b := Banaction{AllPorts: all}
	if !hasArguments {
		return b, nil
	}
	arguments, ok := strings.CutSuffix(strings.TrimSpace(rest), "]")
	if !ok {
		return Banaction{}, fmt.Errorf("action %.60q: no ']' at its end", s)
	}
	for _, v := range splitArguments(arguments) {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return Banaction{}, fmt.Errorf("action %.60q: argument %.40q has no '='", name, v)
		}
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch strings.TrimSpace(key) {
		case "type":
			switch value {
			case "allports":
				b.AllPorts = true
			case "multiport", "oneport":
				b.AllPorts = false
			}
		case "port":
			b.Port = value
		case "protocol":
			b.Protocol = value
		}
	}
	return b, nil
}

// splitArguments splits at commas outside quotes.
func splitArguments(s string) (out []string) {
	var quote byte
	from := 0
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == ',':
			out, from = append(out, s[from:i]), i+1
		}
	}
	if strings.TrimSpace(s[from:]) != "" {
		out = append(out, s[from:])
	}
	return out
}

// Scope gives the action's scope for a topic, given the jail's port and
// protocol: names or numbers, with commas and with ranges ("ssh,2200:2210").
func (b Banaction) Scope(ctx context.Context, topic ban.Topic, port, protocol string) (Scope, error) {
	s := Scope{Topic: topic}
	if b.AllPorts {
		return s, s.normalise()
	}
	if b.Port != "" {
		port = b.Port
	}
	if b.Protocol != "" {
		protocol = b.Protocol
	}
	if len(port) > maxBanaction || len(protocol) > maxBanaction {
		return Scope{}, fmt.Errorf("topic %s: ports or protocols of more than %d bytes", topic, maxBanaction)
	}
	for _, p := range strings.FieldsFunc(protocol, func(r rune) bool { return r == ',' || r == ' ' }) {
		if p == "all" {
			s.Protocols = nil
			break
		}
		s.Protocols = append(s.Protocols, p)
	}
	lookup := "tcp"
	if len(s.Protocols) > 0 && !slices.Contains(s.Protocols, "tcp") {
		lookup = s.Protocols[0]
	}
	for _, p := range strings.FieldsFunc(port, func(r rune) bool { return r == ',' || r == ' ' }) {
		low, high, err := ports(ctx, lookup, p)
		if err != nil {
			return Scope{}, fmt.Errorf("topic %s: %w", topic, err)
		}
		if low == 0 && high == 65_535 || p == "all" || p == "any" {
			s.Ports = nil
			return s, s.normalise()
		}
		if int(high)-int(low) >= MaxPorts || len(s.Ports) > MaxPorts {
			return Scope{}, fmt.Errorf("topic %s: more than %d ports; close all of them instead", topic, MaxPorts)
		}
		for n := int(low); n <= int(high); n++ {
			s.Ports = append(s.Ports, uint16(n))
		}
	}
	if len(s.Ports) == 0 {
		return Scope{}, fmt.Errorf("topic %s: the jail names no port", topic)
	}
	return s, s.normalise()
}

// ports reads one port, by number or name, or a range with ':' or '-'.
func ports(ctx context.Context, network, s string) (low, high uint16, err error) {
	if s == "all" || s == "any" {
		return 0, 65_535, nil
	}
	if i := strings.IndexAny(s, ":-"); i > 0 && s[0] >= '0' && s[0] <= '9' {
		a, errA := strconv.ParseUint(s[:i], 10, 16)
		b, errB := strconv.ParseUint(s[i+1:], 10, 16)
		if errA != nil || errB != nil || a > b {
			return 0, 0, fmt.Errorf("%.40q is no range of ports", s)
		}
		return uint16(a), uint16(b), nil
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, s)
	if err != nil || n < 1 || n > 65_535 {
		return 0, 0, fmt.Errorf("%.40q is no port", s)
	}
	return uint16(n), uint16(n), nil
}
