package detect

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A Success is a login that a log line proves, or work that a service did for
// an address. It never leaves the node.
type Success struct {
	Topic ban.Topic
	// Addr is the client's address, Port its source port, 0 where the line
	// names none.
	Addr netip.Addr
	Port uint16
	// Account tells accounts apart without naming them; 0 where the line names
	// none.
	Account Account
	At      time.Time
}

// An Account is the hash of a user name, with letters folded.
type Account uint64

// AccountOf gives the hash of a user name, 0 for the empty one.
func AccountOf(name string) Account {
	if name == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(strings.ToLower(name)))
	return Account(max(binary.BigEndian.Uint64(sum[:]), 1))
}
