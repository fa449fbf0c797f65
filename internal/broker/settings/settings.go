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
	Network   string          `toml:"network"`
	Names     []string        `toml:"names"`
	StateDir  string          `toml:"state_dir"`
	Anonymous string          `toml:"anonymous"` // "none" (default), "read" or "full"
	Keys      *bool           `toml:"keys"`      // default true
	Open      bool            `toml:"open"`
	Operators []string        `toml:"operators"`
	Vouched   []string        `toml:"vouched"`
	DenyRead  []string        `toml:"deny_read"`
	Listeners []Listener      `toml:"listeners"`
	Users     map[string]User `toml:"users"`
	Limits    Limits          `toml:"limits"`
	Log       Log             `toml:"log"`
	HTTP      HTTP            `toml:"http"`

	path   string
	places strict.Places
}

// A Listener is a place where clients come in.
type Listener struct {
	Kind     string `toml:"kind"` // "tcp", "tls", "ws", "wss" or "unix"
	Address  string `toml:"address"`
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
	Mode     string `toml:"mode"` // of a unix socket, octal
}

// A User is an account.
type User struct {
	Hash   string `toml:"hash"`
	Access string `toml:"access"` // "full" (default) or "read"
}

// Limits bound the cost of clients.
type Limits struct {
	Connections   int     `toml:"connections"`
	PerAddress    int     `toml:"connections_per_address"`
	Connecting    int     `toml:"connecting"`
	ConnectTime   string  `toml:"connect_time"`
	StallTime     string  `toml:"stall_time"`
	MaxKeepalive  string  `toml:"max_keepalive"`
	MaxQueued     int     `toml:"max_queued_bytes"`
	TotalQueued   int     `toml:"total_queued_bytes"`
	Subscriptions int     `toml:"subscriptions"`
	FeedBytes     int     `toml:"node_bytes"`
	FeedMessages  int     `toml:"node_messages"`
	TotalBytes    int     `toml:"total_bytes"`
	OperatorBytes int     `toml:"operator_bytes"`
	NewcomerBytes int     `toml:"newcomer_bytes"`
	PublishRate   float64 `toml:"publish_rate"`
	PublishBurst  int     `toml:"publish_burst"`
	AddressRate   float64 `toml:"address_rate"`
	AddressBurst  int     `toml:"address_burst"`
	FeedAge       string  `toml:"feed_age"` // "30d"; "" keeps feeds for good
	DrainTime     string  `toml:"drain_time"`
}

// Log says how much is logged.
type Log struct {
	Level     string `toml:"level"`  // "debug", "info" (default), "warn" or "error"
	Format    string `toml:"format"` // "text" (default) or "json"
	Addresses bool   `toml:"addresses"`
}

// HTTP serves /metrics and /healthz.
type HTTP struct {
	Listen string `toml:"listen"` // "" is off
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
		"publish_burst": l.PublishBurst, "address_burst": l.AddressBurst,
	} {
		if n < 0 {
			fault("limits."+name, "it is negative")
		}
	}
	if l.PublishRate < 0 || l.AddressRate < 0 {
		fault("limits", "a rate is negative")
	}
	return broker.Limits{
		Connections: l.Connections, PerAddress: l.PerAddress, Connecting: l.Connecting,
		ConnectTime: duration("connect_time", l.ConnectTime), StallTime: duration("stall_time", l.StallTime),
		MaxKeepalive: duration("max_keepalive", l.MaxKeepalive), MaxQueued: l.MaxQueued, TotalQueued: l.TotalQueued, Subscriptions: l.Subscriptions,
		FeedBytes: l.FeedBytes, FeedMessages: l.FeedMessages, TotalBytes: l.TotalBytes, OperatorBytes: l.OperatorBytes, NewcomerBytes: l.NewcomerBytes,
		PublishRate: l.PublishRate, PublishBurst: l.PublishBurst, AddressRate: l.AddressRate, AddressBurst: l.AddressBurst,
		FeedAge: duration("feed_age", l.FeedAge), DrainTime: duration("drain_time", l.DrainTime),
	}
}
