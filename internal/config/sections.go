package config

import (
	"fmt"
	"os/user"
	"strconv"
	"time"

	"banmesh/internal/policy"
)

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
	// Proxy names proxies on other machines before the services of all topics:
	// addresses, prefixes, "cdn", "relay".
	Proxy []string `toml:"proxy"`
	// Shared says whether the shipped list of addresses that many people share
	// is used; default true.
	Shared *bool `toml:"shared"`
	// Include names directories of fail2ban whose jails run in place as
	// topics: "/etc/fail2ban", or a list; [Config.Includes] reads it.
	Include any  `toml:"include"`
	Gate    Gate `toml:"gate"`
	HTTP    HTTP `toml:"http"`
	// Query says which users' programs the query socket answers.
	Query Query `toml:"query"`
	// LAPI answers CrowdSec's bouncers.
	LAPI LAPI `toml:"lapi"`
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
	// MaxBytes bounds its retained messages, on disk and in memory: by default 8 MiB,
	// which a feed of a million addresses fits into.
	MaxBytes int `toml:"max_bytes"`
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
	Detect    *bool `toml:"detect"`     // find offenders here
	Subscribe *bool `toml:"subscribe"`  // accept from trusted operators
	Publish   *bool `toml:"publish"`    // share our own bans
	ShareWeak *bool `toml:"share_weak"` // and what was seen and banned nobody
	Observe   *bool `toml:"observe"`    // count, do not drop
	Simulate  *bool `toml:"simulate"`   // find offenders, ban none of them
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
	// Proxy names those before this topic's service, beside those of all.
	Proxy []string `toml:"proxy"`
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

// Gate is the list of the wallet gate, a process of its own that go-livepeer's
// -authWebhookUrl asks.
type Gate struct {
	Enabled *bool  `toml:"enabled"` // default: where File's directory is
	File    string `toml:"file"`    // default: gate.DefaultFile
	Listen  string `toml:"listen"`  // where the gate listens, to ask how it is
	DryRun  bool   `toml:"dry_run"`
	Message string `toml:"message"` // for the denied
	Chain   string `toml:"chain"`
	// ChainFailure is the answer when a chained webhook fails or is late:
	// "refuse" (default) or "allow".
	ChainFailure string `toml:"chain_failure"`
}

// Query is the socket for programs of this machine: checks, the stream and
// reports, and no commands.
type Query struct {
	// Users are names or numbers of users whose programs may ask, beside root
	// and the agent's own.
	Users []string `toml:"users"`
}

// UIDs gives the users' numbers.
func (q Query) UIDs() (list []uint32, err error) {
	for _, name := range q.Users {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			list = append(list, uint32(n))
			continue
		}
		u, err := user.Lookup(name)
		if err != nil {
			return nil, fmt.Errorf("%q is no user of this machine", name)
		}
		n, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q has no number: %w", name, err)
		}
		list = append(list, uint32(n))
	}
	return list, nil
}

// HTTP serves checks, lists and metrics to other programs.
type HTTP struct {
	Listen         string   `toml:"listen"` // "" = off; "127.0.0.1:8936"
	TrustedProxies []string `toml:"trusted_proxies"`
	ClientHeader   string   `toml:"client_header"`
}

// LAPI answers programs that enforce bans by CrowdSec's local API.
type LAPI struct {
	Listen string `toml:"listen"` // "" = off; "127.0.0.1:8080", or the path of a unix socket
	// Certificate and Key make TCP speak TLS; ClientCA and ClientUnits say whose
	// certificates are bouncers' too.
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	ClientCA    string   `toml:"client_ca"`
	ClientUnits []string `toml:"client_units"` // default "bouncer-ou"
	// Origin is "node", one of here and network, or "operator".
	Origin         string   `toml:"origin"`
	TrustedProxies []string `toml:"trusted_proxies"`
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
