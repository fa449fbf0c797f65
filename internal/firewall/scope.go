package firewall

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A Scope says which packets a ban in a topic blocks.
type Scope struct {
	Topic ban.Topic
	// Ports are the destination ports that are closed to a banned address, as
	// it dials them (before any translation to a container's). Empty means
	// everything that it sends.
	Ports []uint16
	// Protocols are "tcp", "udp", "sctp" or "dccp". Empty with Ports means tcp
	// and udp; empty without Ports means every protocol.
	Protocols []string
	// All closes everything though Ports are named, which then only say whose
	// connections are limited and whose peers are remembered.
	All bool
	// Observe counts packets and drops none.
	Observe bool
	// MaxConnections, when not 0, is how many TCP connections one address may
	// have open to one of Ports at a time; a further one is dropped. It needs
	// Ports, and connection tracking in the kernel.
	MaxConnections uint32
	// Remember asks the kernel to remember TCP connections with one of Ports for
	// this long after their last packet ([Memory]). It needs Ports, and connection
	// tracking in the kernel.
	Remember time.Duration
}

// ProtocolNumber gives the number of a protocol that a scope can name (IANA), 0
// for any other.
func ProtocolNumber(name string) byte {
	switch name {
	case "tcp":
		return 6
	case "udp":
		return 17
	case "dccp":
		return 33
	case "sctp":
		return 132
	}
	return 0
}

// Check gives the faults of the scope.
func (s Scope) Check() error { return s.normalise() }

// normalise sorts the scope's lists and fills in the default protocols.
func (s *Scope) normalise() error {
	if _, err := ban.ParseTopic(string(s.Topic)); err != nil {
		return err
	}
	s.Ports = slices.Compact(slices.Sorted(slices.Values(s.Ports)))
	s.Protocols = slices.Compact(slices.Sorted(slices.Values(s.Protocols)))
	if len(s.Ports) > 0 && len(s.Protocols) == 0 {
		s.Protocols = []string{"tcp", "udp"}
	}
	for _, p := range s.Protocols {
		if ProtocolNumber(p) == 0 {
			return fmt.Errorf("topic %s: unknown protocol %.16q", s.Topic, p)
		}
	}
	if len(s.Ports) > MaxPorts {
		return fmt.Errorf("topic %s: %d ports are more than %d; close all of them instead", s.Topic, len(s.Ports), MaxPorts)
	}
	if len(s.Ports) > 0 && s.Ports[0] == 0 {
		return fmt.Errorf("topic %s: 0 is not a port", s.Topic)
	}
	if len(s.Ports) == 0 && (s.MaxConnections != 0 || s.Remember != 0) {
		return fmt.Errorf("topic %s: a connection limit and remembered peers need ports", s.Topic)
	}
	if s.Remember < 0 || (s.Remember > 0 && s.Remember < time.Second) {
		return fmt.Errorf("topic %s: peers are remembered for a second or more", s.Topic)
	}
	return nil
}

// speaks says whether the scope is about a protocol.
func (s Scope) speaks(protocol string) bool {
	return len(s.Protocols) == 0 || slices.Contains(s.Protocols, protocol)
}

// OnlyTCP says that the scope's service is reached over TCP alone.
func (s Scope) OnlyTCP() bool {
	return len(s.Protocols) > 0 && !slices.ContainsFunc(s.Protocols, func(p string) bool { return p != "tcp" })
}

// Meets says whether the scope is about packets of a protocol to a port.
func (s Scope) Meets(protocol string, port uint16) bool {
	return s.All || s.speaks(protocol) && (len(s.Ports) == 0 || slices.Contains(s.Ports, port))
}
