// Package settings reads the broker's configuration file, strictly: a field that is
// not known is an error, and every fault is shown at once with its place.
package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/span"
	"banmesh/internal/strict"
	"banmesh/internal/wire"
)

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// A File is the configuration as it is written. Missing values are defaults.
type File struct {
	// Network is the network that is served; without it every network is.
	Network string `toml:"network" sample:"'example'"`
	// Names are the broker's host names, in its certificate and invitations.
	Names    []string `toml:"names" sample:"['broker.example.net']"`
	StateDir string   `toml:"state_dir" sample:"'/var/lib/banmesh-broker'"` // where retained messages are kept
	// Anonymous says how far clients without an account come: "none" (default),
	// "read" or "full".
	Anonymous string          `toml:"anonymous" sample:"'read'"`
	Keys      *bool           `toml:"keys"`      // let nodes log in by their own key; default true
	Open      bool            `toml:"open"`      // let operators publish that nobody here knows
	Operators []string        `toml:"operators"` // identities of operators that may publish
	Vouched   []string        `toml:"vouched"`   // identities of operators that have the share of a known one from the first day
	DenyRead  []string        `toml:"deny_read"` // filters of topics that nobody may read
	Listeners []Listener      `toml:"listeners"` // where clients come in
	Users     map[string]User `toml:"users"`     // accounts, by name
	Limits    Limits          `toml:"limits"`    // bounds of the cost of clients: docs/broker.md
	Log       Log             `toml:"log"`       // how much is logged
	HTTP      HTTP            `toml:"http"`      // /metrics and /healthz

	path   string
	places strict.Places
}

// A Listener is a place where clients come in.
type Listener struct {
	Kind     string `toml:"kind" sample:"'tls'"`          // "tcp", "tls", "ws", "wss" or "unix"
	Address  string `toml:"address" sample:"'[::]:8883'"` // host and port, or the path of a unix socket
	CertFile string `toml:"cert_file"`                    // the certificate chain, for tls and wss
	KeyFile  string `toml:"key_file"`                     // its private key
	Mode     string `toml:"mode" sample:"'0660'"`         // permissions of a unix socket, octal
}

// A User is an account.
type User struct {
	Hash   string `toml:"hash"`                   // of the password, as `broker hash` prints it
	Access string `toml:"access" sample:"'full'"` // "full" (default) or "read"
}

// Limits bound the cost of clients.
type Limits struct {
	Connections    int     `toml:"connections" sample:"10000"`            // connections that are open at once
	PerAddress     int     `toml:"connections_per_address" sample:"64"`   // and of one address; of the networks around it a multiple
	Connecting     int     `toml:"connecting" sample:"2048"`              // connections that have not logged in
	ConnectTime    string  `toml:"connect_time" sample:"'10s'"`           // how long they may take
	HandshakeRate  float64 `toml:"handshake_rate" sample:"500.0"`         // TLS handshakes a second; one that comes too early waits
	HandshakeBurst int     `toml:"handshake_burst" sample:"1000"`         // and at once
	StallTime      string  `toml:"stall_time" sample:"'30s'"`             // how long bytes may wait for a slow client
	MaxKeepalive   string  `toml:"max_keepalive" sample:"'20m'"`          // the longest keepalive of a client
	MaxQueued      int     `toml:"max_queued_bytes" sample:"1048576"`     // bytes that wait for one client
	TotalQueued    int     `toml:"total_queued_bytes" sample:"268435456"` // bytes that all connections make the broker hold
	Subscriptions  int     `toml:"subscriptions" sample:"8192"`           // filters of one client
	FeedBytes      int     `toml:"node_bytes" sample:"37748736"`          // bytes retained for one node
	FeedMessages   int     `toml:"node_messages" sample:"4096"`           // messages retained for one node
	TotalBytes     int     `toml:"total_bytes" sample:"536870912"`        // bytes retained for all
	OperatorBytes  int     `toml:"operator_bytes" sample:"67108864"`      // bytes retained for one operator
	NewcomerBytes  int     `toml:"newcomer_bytes" sample:"262144"`        // bytes retained for an unknown operator on its first day; twice as many each further day
	PublishRate    float64 `toml:"publish_rate" sample:"100.0"`           // publications of one node a second
	PublishBurst   int     `toml:"publish_burst" sample:"2000"`           // and at once
	AddressRate    float64 `toml:"address_rate" sample:"1000.0"`          // publications of one address a second
	AddressBurst   int     `toml:"address_burst" sample:"10000"`          // and at once
	FeedAge        string  `toml:"feed_age" sample:"'30d'"`               // after how much silence a feed is collected; "" keeps feeds for good
	DrainTime      string  `toml:"drain_time" sample:"'10s'"`             // over how long a stopping broker says goodbye
}

// Log says how much is logged.
type Log struct {
	Level     string `toml:"level" sample:"'info'"`  // "debug", "info" (default), "warn" or "error"
	Format    string `toml:"format" sample:"'text'"` // "text" (default) or "json"
	Addresses bool   `toml:"addresses"`              // log clients' addresses
}

// HTTP serves /metrics and /healthz.
type HTTP struct {
	Listen string `toml:"listen" sample:"'127.0.0.1:7939'"` // an address; without one nothing is served
}

// Default is the configuration without a file: plain MQTT on loopback, every
// network, everybody on this machine.
func Default() *File {
	return &File{
		Anonymous: "full",
		Listeners: []Listener{{Kind: "tcp", Address: "127.0.0.1:1883"}},
	}
}

// Read reads a file. Every fault is in the error, as [strict.Fault].
func Read(path string) (*File, error) {
	b, err := strict.Read(path, maxFile)
	if err != nil {
		return nil, err
	}
	return Parse(path, b)
}

// Parse reads the text of a file.
func Parse(path string, text []byte) (*File, error) {
	f, _, err := strict.Decode[File](path, text)
	if err != nil {
		return nil, err
	}
	f.path = path
	f.places.Note(path, text)
	return &f, nil
}

// at makes a fault of the value at a dotted path. Without a file, as with the
// flags of `broker run` alone, it names the value.
func (f *File) at(path string, err error) error {
	fault := f.places.At(path, "%v", err)
	fault.File = f.path
	if errors.Is(err, fs.ErrPermission) {
		fault.Hint = "the service is not root: put the file into a group, and name that in SupplementaryGroups= of the unit"
	}
	return fault
}

// Options gives the broker's options, and every fault of the values, joined.
// It reads the certificates that the file names and opens nothing else.
func (f *File) Options() (o broker.Options, err error) {
	var faults []error
	fault := func(path, format string, args ...any) {
		faults = append(faults, f.at(path, fmt.Errorf(format, args...)))
	}
	o = broker.Options{
		Network: f.Network, StateDir: f.StateDir, Keys: f.Keys == nil || *f.Keys, Names: f.Names, Open: f.Open,
		LogAddresses: f.Log.Addresses, DenyRead: f.DenyRead, Users: map[string]broker.User{},
	}
	if f.Network != "" {
		if err := wire.CheckNetwork(f.Network); err != nil {
			fault("network", "%w", err)
		}
	}
	var ok bool
	if o.Anonymous, ok = access(f.Anonymous, "none"); !ok {
		fault("anonymous", "%q is none of \"none\", \"read\" and \"full\"", f.Anonymous)
	}
	for i, s := range f.Operators {
		id, err := ban.ParseOperator(s)
		if err != nil {
			fault("operators", "entry %d: %w", i+1, err)
		}
		o.Operators = append(o.Operators, id)
	}
	for i, s := range f.Vouched {
		id, err := ban.ParseOperator(s)
		if err != nil {
			fault("vouched", "entry %d: %w", i+1, err)
		}
		o.Vouched = append(o.Vouched, id)
	}
	for name, u := range f.Users {
		a, ok := access(u.Access, "full")
		if !ok {
			fault("users."+name+".access", "%q is neither \"full\" nor \"read\"", u.Access)
		}
		if err := broker.CheckHash(u.Hash); err != nil {
			fault("users."+name+".hash", "%w", err)
		}
		o.Users[name] = broker.User{Hash: u.Hash, Access: a}
	}
	if len(f.Listeners) == 0 {
		fault("listeners", "there are none: nobody could connect")
	}
	for i, l := range f.Listeners {
		listener, err := l.options(o.Keys)
		if err != nil {
			fault(fmt.Sprintf("listeners.%d", i), "%w", err)
		}
		o.Listeners = append(o.Listeners, listener)
	}
	if o.Anonymous == broker.AccessNone && !o.Keys && len(o.Users) == 0 {
		fault("keys", "nobody may log in: allow keys, users or anonymous clients")
	}
	o.Limits = f.Limits.options(fault)
	if _, err := f.Log.level(); err != nil {
		fault("log.level", "%w", err)
	}
	if f.Log.Format != "" && f.Log.Format != "text" && f.Log.Format != "json" {
		fault("log.format", "%q is neither \"text\" nor \"json\"", f.Log.Format)
	}
	if f.HTTP.Listen != "" {
		if _, _, err := net.SplitHostPort(f.HTTP.Listen); err != nil {
			fault("http.listen", "%w", err)
		}
	}
	return o, errors.Join(faults...)
}

func access(s, missing string) (broker.Access, bool) {
	if s == "" {
		s = missing
	}
	switch s {
	case "none":
		return broker.AccessNone, true
	case "read":
		return broker.AccessRead, true
	case "full":
		return broker.AccessFull, true
	}
	return broker.AccessNone, false
}

func (l Listener) options(keys bool) (broker.Listener, error) {
	o := broker.Listener{Kind: broker.Kind(l.Kind), Address: l.Address}
	secure := false
	switch o.Kind {
	case broker.TCP, broker.WebSocket:
	case broker.TLS, broker.SecureWS:
		secure = true
	case broker.Unix:
		if l.Mode != "" {
			if n, err := fmt.Sscanf(l.Mode, "%o", &o.Mode); n != 1 || err != nil || o.Mode > 0o777 {
				return o, fmt.Errorf("mode: %q is no octal file mode", l.Mode)
			}
		}
	default:
		return o, fmt.Errorf("kind: %q is none of \"tcp\", \"tls\", \"ws\", \"wss\" and \"unix\"", l.Kind)
	}
	if o.Kind == broker.Unix {
		if l.Address == "" {
			return o, errors.New("address: a unix listener needs a path")
		}
	} else if _, _, err := net.SplitHostPort(l.Address); err != nil {
		return o, fmt.Errorf("address: %w", err)
	}
	if !secure {
		if l.CertFile != "" || l.KeyFile != "" {
			return o, fmt.Errorf("a %s listener has no certificate", l.Kind)
		}
		return o, nil
	}
	c, err := newCertificate(l.CertFile, l.KeyFile)
	if err != nil {
		return o, err
	}
	o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	if keys {
		// A certificate that a node made for itself shows its key.
		o.TLS.ClientAuth = tls.RequestClientCert
	}
	if o.Kind == broker.SecureWS {
		o.TLS.NextProtos = []string{"http/1.1"}
	}
	return o, nil
}

func (l Limits) options(fault func(path, format string, args ...any)) broker.Limits {
	duration := func(name, s string) time.Duration {
		if s == "" {
			return 0
		}
		d, err := span.Parse(s)
		if err != nil || d <= 0 || d == span.Permanent {
			fault("limits."+name, "%q is no time such as \"10s\" or \"30d\"", s)
			return 0
		}
		return d
	}
	for name, n := range map[string]int{
		"connections": l.Connections, "connections_per_address": l.PerAddress, "connecting": l.Connecting, "max_queued_bytes": l.MaxQueued, "total_queued_bytes": l.TotalQueued,
		"subscriptions": l.Subscriptions, "node_bytes": l.FeedBytes, "node_messages": l.FeedMessages, "total_bytes": l.TotalBytes, "operator_bytes": l.OperatorBytes, "newcomer_bytes": l.NewcomerBytes,
		"publish_burst": l.PublishBurst, "address_burst": l.AddressBurst, "handshake_burst": l.HandshakeBurst,
	} {
		if n < 0 {
			fault("limits."+name, "it is negative")
		}
	}
	if l.PublishRate < 0 || l.HandshakeRate < 0 || l.AddressRate < 0 {
		fault("limits", "a rate is negative")
	}
	return broker.Limits{
		Connections: l.Connections, PerAddress: l.PerAddress, Connecting: l.Connecting,
		ConnectTime: duration("connect_time", l.ConnectTime), StallTime: duration("stall_time", l.StallTime),
		MaxKeepalive: duration("max_keepalive", l.MaxKeepalive), MaxQueued: l.MaxQueued, TotalQueued: l.TotalQueued, Subscriptions: l.Subscriptions,
		FeedBytes: l.FeedBytes, FeedMessages: l.FeedMessages, TotalBytes: l.TotalBytes, OperatorBytes: l.OperatorBytes, NewcomerBytes: l.NewcomerBytes,
		PublishRate: l.PublishRate, PublishBurst: l.PublishBurst, AddressRate: l.AddressRate, AddressBurst: l.AddressBurst,
		HandshakeRate: l.HandshakeRate, HandshakeBurst: l.HandshakeBurst,
		FeedAge: duration("feed_age", l.FeedAge), DrainTime: duration("drain_time", l.DrainTime),
	}
}
