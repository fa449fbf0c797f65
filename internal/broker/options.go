package broker

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/wire"
)

// Options say which network a broker serves, where and to whom. The zero value of a field is
// its default, the safe side.
type Options struct {
	// Network is the network whose feeds are admitted; "" admits those of any
	// network.
	Network string
	// Listeners are where clients come in. Required.
	Listeners []Listener
	// StateDir keeps retained messages and banned keys across restarts; ""
	// keeps them in memory alone.
	StateDir string

	// Anonymous is the access of a client without a user name.
	Anonymous Access
	// Keys lets nodes in by proof of their key: the client identifier is the
	// node, and the password a signed proof or the TLS certificate's key.
	Keys bool
	// Names are the host names by which clients call this broker, for proofs of key that are
	// bound to it. None accepts every name.
	Names []string
	// Users are accounts of a private network, by name.
	Users map[string]User
	// Operators, if any are named, are the only ones whose messages are
	// admitted.
	Operators []ban.Operator

	// Vouched are operators that get a known operator's share of the store
	// from the first day. Those of Operators do, too.
	Vouched []ban.Operator

	// DenyRead are filters that nobody may subscribe to, spelled exactly so.
	DenyRead []string

	// Open admits every topic and payload, not only signed feeds, and keeps
	// sessions of clients that ask for it. For a private network among
	// friends, an ingress that [Gateway] guards, and conformance tests.
	Open bool

	Limits Limits
	// LogAddresses lets clients' addresses into logs and status.
	LogAddresses bool
	Log          *slog.Logger
	// Version is the program's, for its metrics.
	Version string
	// Registry takes the metrics; nil makes one of its own.
	Registry *prometheus.Registry
	Now      func() time.Time
}

// Access says whether a client may read, or publish too.
type Access uint8

// Accesses, each more than the one before.
const (
	AccessNone Access = iota
	AccessRead        // subscribe
	AccessFull        // subscribe, and publish as far as admission lets it
)

// A User is an account.
type User struct {
	Hash   string // as [HashPassword] gives it
	Access Access
}

// A Listener is a place where clients come in.
type Listener struct {
	Kind    Kind
	Address string // host:port, or the path of a unix socket
	TLS     *tls.Config
	// Mode is the file mode of a unix socket; 0 means 0660.
	Mode uint32
}

// Kind is how MQTT is carried.
type Kind string

// Kinds of listeners.
const (
	TCP       Kind = "tcp"
	TLS       Kind = "tls"
	WebSocket Kind = "ws"
	SecureWS  Kind = "wss"
	Unix      Kind = "unix"
)

// Limits bound the cost of clients. A zero field takes its default.
type Limits struct {
	// Connections is how many there are at most; never more than the file
	// descriptors that the process may open, less those that it needs itself.
	Connections int
	// PerAddress is how many come from one IPv4 address or IPv6 /64. It does
	// not count loopback, which a proxy or tunnel uses for all its clients.
	PerAddress int
	// Connecting is how many may be on their way to a login.
	Connecting int
	// ConnectTime is how long a login may take, TLS included.
	ConnectTime time.Duration
	// HandshakeRate and HandshakeBurst are TLS handshakes a second, and how
	// many at once. One that comes too early waits.
	HandshakeRate  float64
	HandshakeBurst int
	// StallTime is how long a client may take nothing while bytes are pending
	// for it.
	StallTime time.Duration
	// MaxKeepalive is the longest keepalive; longer ones are refused.
	MaxKeepalive time.Duration
	// MaxConnect, MaxPacket bound a CONNECT and any later packet, in bytes.
	MaxConnect int
	MaxPacket  int
	// MaxQueued is how many bytes wait for a client that reads slowly. The
	// client is cut beyond it: it can resume, the others need not wait.
	MaxQueued int
	// TotalQueued is how many bytes wait for all clients together, and of
	// them in packets that have not come to their end. Beyond it those who
	// hold most are cut.
	TotalQueued int
	// Subscriptions of one client.
	Subscriptions int
	// MaxSearch is how many levels of topics one SUBSCRIBE may look at for
	// retained messages.
	MaxSearch int
	// FeedBytes and FeedMessages bound one node's retained messages,
	// overhead included; TotalBytes those of all.
	FeedBytes    int
	FeedMessages int
	TotalBytes   int
	// OperatorBytes bounds the retained messages of a known operator, and
	// NewcomerBytes those of one whom nobody here knows, on its first day.
	OperatorBytes int
	NewcomerBytes int
	// PublishRate and PublishBurst are messages a second of one key, and how
	// many at once; a client that is faster is slowed down, not refused.
	PublishRate  float64
	PublishBurst int
	// AddressRate and AddressBurst are the same for one address.
	AddressRate  float64
	AddressBurst int
	// SessionTime is how long an open broker keeps a session of a client that
	// is away.
	SessionTime time.Duration
	// FeedAge is after how long without a word a feed's retained messages are
	// collected; 0 means never.
	FeedAge time.Duration
	// DrainTime spreads the goodbyes of a stopping broker, so that a thousand
	// clients do not reconnect elsewhere in the same instant.
	DrainTime time.Duration
}

// Limits that do not depend on configuration.
const (
	// maxLevels bounds topics and filters: a feed's have at most 8 levels.
	maxLevels = 10
	// maxFilter bounds filters, in bytes: the longest topic of the protocol
	// has 142.
	maxFilter = 256
	// maxInflight is the most publications kept for a session of an open
	// broker.
	maxInflight = 8192
	// maxRetainedPending is how many retained messages may be pending for a client.
	maxRetainedPending = 1 << 18
	// ownDescriptors are the files that the process needs itself.
	ownDescriptors = 128
)

// defaults gives l with every zero field replaced.
func (l Limits) defaults() Limits {
	set(&l.Connections, 10_000)
	set(&l.PerAddress, 64)
	set(&l.Connecting, 2048)
	set(&l.ConnectTime, 10*time.Second)
	set(&l.HandshakeRate, 500)   // a quarter of a processor
	set(&l.HandshakeBurst, 1000) // a community that comes back
	set(&l.StallTime, 30*time.Second)
	set(&l.MaxKeepalive, 20*time.Minute)
	set(&l.MaxConnect, 4<<10)
	set(&l.MaxPacket, 128<<10+maxFilter+frame.MaxHeader+4) // the protocol's largest payload
	set(&l.MaxQueued, 1<<20)
	set(&l.TotalQueued, 256<<20)
	set(&l.Subscriptions, 8192)
	set(&l.MaxSearch, 4<<20)                   // all of 100,000 feeds ten times over, in a quarter of a second
	set(&l.FeedBytes, wire.MaxFeedBytes+4<<20) // the largest feed and its deltas
	set(&l.FeedMessages, 4096)
	set(&l.TotalBytes, 512<<20)
	set(&l.OperatorBytes, min(64<<20, l.TotalBytes))
	set(&l.NewcomerBytes, 256<<10) // ten feeds of a few hundred bans each
	set(&l.PublishRate, 100)
	set(&l.PublishBurst, 2000) // a whole feed of a million bans after a broker was wiped
	set(&l.AddressRate, 1000)
	set(&l.AddressBurst, 10_000)
	set(&l.SessionTime, time.Hour)
	set(&l.DrainTime, 10*time.Second)
	return l
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
