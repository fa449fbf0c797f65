// Package config reads the agent's configuration: TOML files that people and
// `agent topics subscribe` write, merged and checked, with every fault at once.
// The program never rewrites a file that a person wrote.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banmesh/internal/policy"
	"banmesh/internal/strict"
)

// MaxFile bounds one configuration file.
const MaxFile = 4 << 20

// Config is the whole configuration, files merged, defaults not yet applied:
// a nil pointer or empty value means that nothing was said.
type Config struct {
	// Network is the name of the network of which the node is a part.
	Network string `toml:"network"`
	// Brokers are used all at once.
	Brokers        []Broker       `toml:"brokers"`
	EmbeddedBroker EmbeddedBroker `toml:"embedded_broker"`
	Firewall       Firewall       `toml:"firewall"`
	// Operators are the peers that policy may name.
	Operators map[string]policy.OperatorSource `toml:"operators"`
	// Groups are sets of operators' names.
	Groups map[string][]string `toml:"groups"`
	// Topics are the settings of each topic.
	Topics map[string]Topic `toml:"topics"`
	// NeverBan are entries beside those that are found automatically.
	NeverBan []NeverBan `toml:"never_ban"`
	// MayBan are prefixes of private ranges that may be banned all the same:
	// laboratories, and networks in which neighbours are not friends.
	MayBan []string `toml:"may_ban"`
	// Packs are the signed lists in use, by name.
	Packs map[string]Pack `toml:"packs"`
	// Shared says whether the shipped list of addresses that many people share
	// is used; default true.
	Shared *bool `toml:"shared"`
	// Include names directories of fail2ban whose jails run in place as
	// topics: "/etc/fail2ban", or a list; [Config.Includes] reads it.
	Include any  `toml:"include"`
	Gate    Gate `toml:"gate"`
	HTTP    HTTP `toml:"http"`
	// Guests are addresses that lately logged in or did real work here.
	Guests Guests `toml:"guests"`
	// Honeyport watches ports at which nothing listens.
	Honeyport Honeyport `toml:"honeyport"`
}

// Honeyport says at which ports a finished handshake is an offence.
type Honeyport struct {
	Ports []uint16 `toml:"ports"`
}

// Guests says who is a guest, whom no peer and no weak evidence bans.
type Guests struct {
	Enabled *bool `toml:"enabled"` // default true
	For     Text  `toml:"for"`     // how long after the last success; default "30d"
}

// Broker is an MQTT broker, which nobody has to trust.
type Broker struct {
	URL string `toml:"url"` // tcp://, ssl://, ws://, wss:// or unix://
	// Others are further addresses of the same broker or the nodes of its
	// cluster, tried in turn.
	Others       []string `toml:"others"`
	User         string   `toml:"user"`
	PasswordFile string   `toml:"password_file"`
	CAFile       string   `toml:"ca_file"`
	CertFile     string   `toml:"cert_file"`
	KeyFile      string   `toml:"key_file"`
	ServerName   string   `toml:"server_name"`
}

// EmbeddedBroker is the broker inside the agent.
type EmbeddedBroker struct {
	// Enabled is by default whether no broker is named and something is
	// published or accepted, or Listen is set.
	Enabled *bool `toml:"enabled"`
	// Listen is a TCP address; the default is a socket in the state directory.
	Listen string `toml:"listen"`
}

// Firewall says how bans reach the kernel.
type Firewall struct {
	Mode string `toml:"mode"` // "enforce" (default), "observe" or "off"
	// Enforcer is "nftables" (default), "ipset" or "hook".
	Enforcer string `toml:"enforcer"`
	// Hook is the absolute path of the program that the hook enforcer runs, and
	// its first arguments.
	Hook []string `toml:"hook"`
	// IPTablesLegacy makes the ipset enforcer use iptables-legacy.
	IPTablesLegacy bool   `toml:"iptables_legacy"`
	Table          string `toml:"table"`
	MaxBan         int    `toml:"max_bans"`
	// Owner says whether the nftables table is the agent's own: "auto"
	// (default), "never" or "always".
	Owner string `toml:"owner"`
	// KeepSockets leaves local connections of newly banned addresses open.
	KeepSockets bool `toml:"keep_sockets"`
}

// Topic holds the settings of one topic.
type Topic struct {
	// The policy: ban, watch, require, ttl and so on.
	policy.TopicSource
	Detect    *bool `toml:"detect"`    // find offenders here
	Subscribe *bool `toml:"subscribe"` // accept from trusted operators
	Publish   *bool `toml:"publish"`   // share our own bans
	Observe   *bool `toml:"observe"`   // count, do not drop
	Simulate  *bool `toml:"simulate"`  // find offenders, ban none of them
	// Thresholds that replace the definition's.
	MaxRetry       *int     `toml:"maxretry"`
	GuestMaxRetry  *int     `toml:"guest_maxretry"`
	FindTime       Text     `toml:"findtime"`
	BanTime        Text     `toml:"bantime"`
	IgnoreIP       []string `toml:"ignoreip"`
	Files          []string `toml:"files"`
	Journal        []string `toml:"journal"`
	Both           *bool    `toml:"both"`
	Docker         []string `toml:"docker"`
	Syslog         []string `toml:"syslog"`
	Stdin          *bool    `toml:"stdin"`
	UseDNS         *bool    `toml:"usedns"`
	Ports          []uint16 `toml:"ports"`
	AllPorts       *bool    `toml:"all_ports"`
	Protocols      []string `toml:"protocols"`
	MaxConnections *int     `toml:"max_connections"`
	// Corroborate replaces the definition's: a time, or "off".
	Corroborate Text `toml:"corroborate"`
	// Reports takes offences that programs of this machine report.
	Reports *bool `toml:"reports"`
}

// Pack is a signed list that is believed.
type Pack struct {
	Operator string `toml:"operator"` // whose key signs it: an identity
}

// NeverBan is an entry written by hand.
type NeverBan struct {
	Target  string `toml:"target"`
	Comment string `toml:"comment"`
	Until   any    `toml:"until"` // a time, with or without quotes; nothing means for good
}

// End gives the time of Until, zero where there is none.
func (n NeverBan) End() (time.Time, error) {
	switch v := n.Until.(type) {
	case nil:
		return time.Time{}, nil
	case time.Time:
		return v, nil
	case string:
		if v == "" {
			return time.Time{}, nil
		}
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2026-06-01T00:00:00Z", fmt.Sprint(n.Until))
}

// Text is a text that may also be a number without quotes: bantime = 3600.
type Text string

// UnmarshalText takes whatever was written.
func (t *Text) UnmarshalText(b []byte) error {
	*t = Text(b)
	return nil
}

// Gate is the wallet gate that go-livepeer's -authWebhookUrl asks.
type Gate struct {
	Enabled *bool  `toml:"enabled"`
	Listen  string `toml:"listen"`
	DryRun  bool   `toml:"dry_run"`
	Chain   string `toml:"chain"`
	// ChainFailure is the answer when a chained webhook fails or is late:
	// "refuse" (default) or "allow".
	ChainFailure string `toml:"chain_failure"`
}

// HTTP serves checks, lists and metrics to other programs.
type HTTP struct {
	Listen         string   `toml:"listen"` // "" = off; "127.0.0.1:8936"
	TrustedProxies []string `toml:"trusted_proxies"`
	ClientHeader   string   `toml:"client_header"`
}

// Loaded is a configuration and where each value of it was written.
type Loaded struct {
	Config
	// Files that were read, in order.
	Files  []string
	places strict.Places
}

// At makes a fault about the value at a dotted path ("topics.sshd.ban"), or
// about the nearest table above it that a file has.
func (l *Loaded) At(path, format string, args ...any) *strict.Fault {
	return l.Locate(&strict.Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// Locate gives a fault of a value the file, line and column of its path.
func (l *Loaded) Locate(f *strict.Fault) *strict.Fault {
	f.File, f.Line, f.Column = "configuration", 0, 0
	l.places.Locate(f)
	return f
}

// Load reads agent.toml and then conf.d/*.toml of dir, sorted by name; later
// files add to earlier ones and win, key by key. A directory or file that is
// not there is an empty configuration. Every fault of every file is in the
// error, joined, as a [strict.Fault].
func Load(dir string) (*Loaded, error) {
	l := &Loaded{}
	whole := map[string]any{}
	var faults []error
	more, err := ListFiles(filepath.Join(dir, DropInDirectory), ".toml")
	if err != nil {
		faults = append(faults, unreadable(filepath.Join(dir, DropInDirectory), err))
	}
	for _, name := range append([]string{filepath.Join(dir, "agent.toml")}, more...) {
		data, err := strict.Read(name, MaxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			faults = append(faults, unreadable(name, err))
			continue
		}
		l.Files = append(l.Files, name)
		_, part, err := strict.Decode[Config](name, data)
		if err != nil {
			faults = append(faults, all(err)...)
			continue
		}
		merge(whole, part)
		l.places.Note(name, data)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	b, err := strict.Encode(whole)
	if err == nil {
		l.Config, _, err = strict.Decode[Config]("configuration", b)
	}
	if err != nil {
		return nil, fmt.Errorf("merging the configuration: %w", err)
	}
	return l, nil
}

// all gives the faults of a file one by one.
func all(err error) []error {
	if faults, ok := errors.AsType[strict.Faults](err); ok {
		return faults.Unwrap()
	}
	return []error{err}
}

// ListFiles gives the files of a directory whose names end in suffix, sorted.
// A directory that is not there is empty; one that may not be read is an
// error, for its files would silently not count.
func ListFiles(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries { // sorted by name
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, err
}

// unreadable is the fault of a file or directory that cannot be read.
func unreadable(name string, err error) *strict.Fault {
	f, ok := errors.AsType[*strict.Fault](err)
	if !ok {
		f = strict.Unreadable(name, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		f.Hint = "the service reads it as a user of its own: chmod -R a+rX " + name
	}
	return f
}

// Includes gives the directories that Include names.
func (c *Config) Includes() ([]string, error) {
	switch v := c.Include.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var list []string
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%v is no directory's name", x)
			}
			list = append(list, s)
		}
		return list, nil
	}
	return nil, fmt.Errorf("it is a directory's name or a list of them, not %v", c.Include)
}

// Policy gives the sections that [policy.Compile] reads.
func (c *Config) Policy() policy.Source {
	s := policy.Source{Operators: c.Operators, Groups: c.Groups, Topics: map[string]policy.TopicSource{}}
	for name, t := range c.Topics {
		s.Topics[name] = t.TopicSource
	}
	return s
}

// merge adds part to whole: tables key by key, arrays of tables and of
// never-ban entries by appending, everything else by replacing.
func merge(whole, part map[string]any) {
	for k, v := range part {
		switch v := v.(type) {
		case map[string]any:
			if old, ok := whole[k].(map[string]any); ok {
				merge(old, v)
				continue
			}
		case []any:
			if old, ok := whole[k].([]any); ok && len(v) > 0 {
				if _, tables := v[0].(map[string]any); tables {
					whole[k] = append(old, v...)
					continue
				}
			}
		}
		whole[k] = v
	}
}
