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
	Network string `toml:"network" sample:"'banmesh'"`
	// Brokers are used all at once; nobody has to trust them.
	Brokers []Broker `toml:"brokers"`
	// EmbeddedBroker is a broker inside the agent, for one machine or a few.
	EmbeddedBroker EmbeddedBroker `toml:"embedded_broker"`
	// Firewall says how bans reach the kernel.
	Firewall Firewall `toml:"firewall"`
	// Operators are the peers that policy may name.
	Operators map[string]policy.OperatorSource `toml:"operators"`
	// Groups are sets of operators' names.
	Groups map[string][]string `toml:"groups" sample:"['alice', 'bob']"`
	// Topics are the settings of each topic.
	Topics map[string]Topic `toml:"topics"`
	// NeverBan are entries beside those that are found automatically.
	NeverBan []NeverBan `toml:"never_ban"`
	// MayBan are prefixes of private ranges that may be banned all the same:
	// laboratories, and networks in which neighbours are not friends.
	MayBan []string `toml:"may_ban" sample:"['10.9.0.0/16']"`
	// Packs are the signed lists in use, by name.
	Packs map[string]Pack `toml:"packs"`
	// Lists are public lists of addresses that count here, by name:
	// docs/compat/lists.md.
	Lists map[string]List `toml:"lists"`
	// Fetch says where `agent fetch` leaves the lists that have an address.
	Fetch Fetch `toml:"fetch"`
	// Proxy names proxies on other machines before the services of all topics:
	// addresses, prefixes, "cdn", "relay".
	Proxy []string `toml:"proxy" sample:"['10.0.0.5', 'cdn']"`
	// Shared says whether the shipped list of addresses that many people share
	// is used; default true.
	Shared *bool `toml:"shared"`
	// Include names directories of fail2ban whose jails run in place as
	// topics: "/etc/fail2ban", or a list.
	Include any `toml:"include" sample:"'/etc/fail2ban'"`
	// Gate is the list of denied wallets for banmesh-gate: docs/livepeer.md.
	Gate Gate `toml:"gate"`
	// HTTP serves checks, lists and metrics to other programs.
	HTTP HTTP `toml:"http"`
	// Page is the page for a browser: docs/page.md.
	Page Page `toml:"page"`
	// Query says which users' programs the query socket answers.
	Query Query `toml:"query"`
	// LAPI answers CrowdSec's bouncers.
	LAPI LAPI `toml:"lapi"`
	// Fail2ban answers fail2ban's clients, and reads and writes its log.
	Fail2ban Fail2ban `toml:"fail2ban"`
	// CrowdSec lets CrowdSec itself join: its bans come in, ours go out.
	CrowdSec CrowdSec `toml:"crowdsec"`
	// Vallumd are private brokers whose vallumds are told bans, or are believed.
	Vallumd []Vallumd `toml:"vallumd"`
	// Guests are addresses that lately logged in or did real work here.
	Guests Guests `toml:"guests"`
	// Honeyport watches ports at which nothing listens.
	Honeyport Honeyport `toml:"honeyport"`
	// Notify are receivers of messages: docs/notify.md.
	Notify []Notify `toml:"notify"`
}

// Notify is a receiver of messages about this node.
type Notify struct {
	Name string `toml:"name" sample:"'phone'"` // of a-z, 0-9 and '-'
	// Type is "email", "webhook", "ntfy", "gotify", "matrix", "telegram", "slack",
	// "discord" or "mqtt".
	Type string `toml:"type" sample:"'ntfy'"`
	// URL is the server's: https:// and, of ntfy, with the topic; smtp:// (STARTTLS)
	// or smtps:// for e-mail, by default this machine's own; ssl:// for MQTT.
	URL string `toml:"url" sample:"'https://ntfy.sh/my-topic'"`
	// To are the addresses of e-mail, the room of Matrix, the chat of Telegram or the
	// topic of MQTT.
	To   []string `toml:"to" sample:"['admin@example.org']"`
	From string   `toml:"from" sample:"'banmesh@example.org'"` // the sender's address, of e-mail
	User string   `toml:"user"`                                // an account at the server, of e-mail, MQTT and ntfy
	// TokenFile is a file with the secret, which not every user may read: the token,
	// the account's password, the key that signs webhooks, or the whole address of
	// a webhook of Slack or Discord.
	TokenFile string `toml:"token_file" sample:"'/etc/banmesh/ntfy.token'"`
	CAFile    string `toml:"ca_file"` // a file with the certificates that may sign the server's, in place of the system's
	Plain     bool   `toml:"plain"`   // send in plain text beyond this machine, without TLS
	// On are the kinds of messages: "ban", "hold", "quarantine", "mistake", "ending",
	// "silent", "unbitten", "fault", "receipt"; by default all but "ban".
	On    []string `toml:"on" sample:"['hold', 'fault', 'receipt']"`
	Every Text     `toml:"every" sample:"'5m'"` // how often a kind is told at most; the sample is the default
	// Quiet are hours of this machine's clock in which only urgent kinds are sent.
	Quiet string `toml:"quiet" sample:"'22:00-07:00'"`
	// Urgent are the kinds that quiet hours do not stop; by default "fault".
	Urgent []string `toml:"urgent" sample:"['fault']"`
	// Details adds log lines and the full text of warnings, which may name users,
	// hosts and files.
	Details bool   `toml:"details"`
	Label   string `toml:"label" sample:"'web 1'"` // begins each message, in place of "Banmesh"
}

// Honeyport says at which ports a finished handshake is an offence.
type Honeyport struct {
	// Ports at which nothing listens.
	Ports []uint16 `toml:"ports" sample:"[23, 2323]"`
}

// Guests says who is a guest, whom no peer and no weak evidence bans.
type Guests struct {
	Enabled *bool `toml:"enabled"`            // whether there are guests; default true
	For     Text  `toml:"for" sample:"'30d'"` // how long after the last success; default "30d"
}

// Broker is an MQTT broker, which nobody has to trust.
type Broker struct {
	// URL begins with tcp://, ssl://, ws://, wss:// or unix://.
	URL string `toml:"url" sample:"'ssl://broker.example.net:8883'"`
	// Others are further addresses of the same broker or the nodes of its
	// cluster, tried in turn.
	Others []string `toml:"others"`
	// Monitors are the monitoring addresses (http://HOST:8222) of the NATS servers at
	// url and others, in the same order: the agent then tells when one of them
	// hands newcomers nothing new, and uses another one.
	Monitors     []string `toml:"monitors" sample:"['http://192.0.2.1:8222']"`
	User         string   `toml:"user"`          // an account at the broker, where it asks for one
	PasswordFile string   `toml:"password_file"` // a file with the account's password
	CAFile       string   `toml:"ca_file"`       // a file with the certificates that may sign the broker's, in place of the system's
	// Fingerprint is the SHA-256 of the broker's own certificate, in hex: whoever
	// signed it and for which name then does not matter.
	Fingerprint string `toml:"fingerprint"`
	CertFile    string `toml:"cert_file"`   // a certificate that this node shows
	KeyFile     string `toml:"key_file"`    // the private key of that certificate
	ServerName  string `toml:"server_name"` // the name in the broker's certificate, where it is not the one of the address
}

// EmbeddedBroker is the broker inside the agent.
type EmbeddedBroker struct {
	// Enabled is by default whether no broker is named and something is
	// published or accepted, or Listen is set.
	Enabled *bool `toml:"enabled"`
	// Listen is a TCP address; the default is a socket in the state directory.
	Listen string `toml:"listen" sample:"'192.0.2.1:1883'"`
	// TLS makes it speak TLS at Listen, with a certificate that it makes itself;
	// other nodes name its fingerprint. This node uses the socket all the same.
	TLS bool `toml:"tls"`
	// MaxBytes bounds its retained messages, on disk and in memory: by default 8 MiB,
	// which a feed of a million addresses fits into.
	MaxBytes int `toml:"max_bytes" sample:"8388608"`
}

// Firewall says how bans reach the kernel.
type Firewall struct {
	// Mode is "enforce" (default), "observe" (count packets that would be dropped) or "off".
	Mode string `toml:"mode" sample:"'enforce'"`
	// Enforcer is "nftables" (default), "ipset" or "hook".
	Enforcer string `toml:"enforcer" sample:"'nftables'"`
	// Hook is the absolute path of the program that the hook enforcer runs, and
	// its first arguments.
	Hook []string `toml:"hook"`
	// IPTablesLegacy makes the ipset enforcer use iptables-legacy.
	IPTablesLegacy bool `toml:"iptables_legacy"`
	// Table is the name of the nftables table, or the prefix of the sets' names;
	// default "banmesh".
	Table string `toml:"table" sample:"'banmesh'"`
	// MaxBan is how many bans the kernel takes at most.
	MaxBan int `toml:"max_bans" sample:"1000000"`
	// Owner says whether the nftables table is the agent's own: "auto"
	// (default), "never" or "always".
	Owner string `toml:"owner" sample:"'auto'"`
	// KeepSockets leaves local connections of newly banned addresses open.
	KeepSockets bool `toml:"keep_sockets"`
}

// Topic holds the settings of one topic.
type Topic struct {
	// The policy: ban, watch, require, ttl and so on.
	policy.TopicSource
	Detect    *bool `toml:"detect"`     // find offenders here
	Subscribe *bool `toml:"subscribe"`  // accept bans of trusted operators
	Publish   *bool `toml:"publish"`    // share the bans that this node makes
	ShareWeak *bool `toml:"share_weak"` // and sightings that banned nobody
	Observe   *bool `toml:"observe"`    // count packets, do not drop them
	Simulate  *bool `toml:"simulate"`   // find offenders, ban none of them
	// MaxRetry offences within FindTime make a ban of BanTime; here and below,
	// one that is left out is the definition's.
	MaxRetry *int `toml:"maxretry" sample:"5"`
	// GuestMaxRetry is MaxRetry for guests.
	GuestMaxRetry *int `toml:"guest_maxretry" sample:"9"`
	FindTime      Text `toml:"findtime" sample:"'10m'"` // the time within which offences count together
	BanTime       Text `toml:"bantime" sample:"'1h'"`   // the time for which an offender is banned
	// IgnoreIP are addresses and prefixes that are never offenders of this topic.
	IgnoreIP []string `toml:"ignoreip" sample:"['192.0.2.0/24']"`
	// Files are patterns of log files, in place of the definition's.
	Files []string `toml:"files" sample:"['/var/log/auth.log']"`
	// Journal are matches of the systemd journal, in place of the definition's.
	Journal []string `toml:"journal" sample:"['_SYSTEMD_UNIT=ssh.service']"`
	Both    *bool    `toml:"both"`                                     // read the files too where there is a journal
	Docker  []string `toml:"docker" sample:"['gitea']"`                // names of containers whose log is read
	Syslog  []string `toml:"syslog" sample:"['udp://127.0.0.1:5140']"` // addresses on which syslog is received
	Stdin   *bool    `toml:"stdin"`                                    // read the agent's standard input
	UseDNS  *bool    `toml:"usedns"`                                   // take host names in the log for offenders too
	Ports   []uint16 `toml:"ports" sample:"[22, 2222]"`                // ports that are closed to the banned, in place of the definition's
	// AllPorts closes every port to the banned.
	AllPorts  *bool    `toml:"all_ports"`
	Protocols []string `toml:"protocols" sample:"['tcp']"` // protocols of Ports: tcp, udp, sctp, dccp
	// MaxConnections is how many connections an address may have open at the
	// topic's ports.
	MaxConnections *int `toml:"max_connections" sample:"64"`
	// Corroborate replaces the definition's: a time, or "off".
	Corroborate Text `toml:"corroborate" sample:"'1h'"`
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
	Target  string `toml:"target" sample:"'198.51.100.7'"` // an address, a prefix or a host name
	Comment string `toml:"comment"`                        // for people
	Until   any    `toml:"until"`                          // a time, with or without quotes; nothing means for good
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
	Enabled *bool  `toml:"enabled"`                                        // whether the list is written; default: where the directory of File is
	File    string `toml:"file" sample:"'/var/lib/banmesh-gate/wallets'"`  // where the list is written; the sample is the default
	Listen  string `toml:"listen" sample:"'127.0.0.1:7936'"`               // where the gate listens, to ask how it is
	DryRun  bool   `toml:"dry_run"`                                        // count the denied, refuse nobody
	Message string `toml:"message"`                                        // the text for denied clients
	Chain   string `toml:"chain" sample:"'http://127.0.0.1:7000/webhook'"` // another webhook, asked for whom the gate lets pass
	// ChainFailure is the answer when a chained webhook fails or is late:
	// "refuse" (default) or "allow".
	ChainFailure string `toml:"chain_failure" sample:"'refuse'"`
}

// Query is the socket for programs of this machine: checks, the stream and
// reports, and no commands.
type Query struct {
	// Users are names or numbers of users whose programs may ask, beside root
	// and the agent's own.
	Users []string `toml:"users" sample:"['livepeer']"`
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
	Listen         string   `toml:"listen" sample:"'127.0.0.1:8936'"`         // an address; without one nothing is served
	TrustedProxies []string `toml:"trusted_proxies"`                          // addresses and prefixes whose header names the client
	ClientHeader   string   `toml:"client_header" sample:"'X-Forwarded-For'"` // the header in which they name it
	// Appeal tells visitors who are refused where to object: a mail address, an
	// address on the web, or a sentence.
	Appeal string `toml:"appeal" sample:"'abuse@example.org'"`
	// Allow names who may read: addresses and prefixes. Beyond loopback this or
	// token_file is needed.
	Allow     []string `toml:"allow" sample:"['10.0.0.0/8']"`
	TokenFile string   `toml:"token_file" sample:"'/etc/banmesh/http.token'"` // a file with a token of at least 16 characters, for readers anywhere else
}

// Page is the page that shows this node in a browser. Nobody sees it without
// the one-time link of `agent page open`.
type Page struct {
	// Listen is an address or the path of a unix socket; without one there is no page.
	Listen string `toml:"listen" sample:"'127.0.0.1:7938'"`
	// URL is the page's address as a browser reaches it, where a reverse proxy
	// stands before it.
	URL         string `toml:"url" sample:"'https://bans.example.org'"`
	Certificate string `toml:"certificate"` // a file with the certificate with which the page speaks TLS
	Key         string `toml:"key"`         // its private key
	// Plain allows an address beyond loopback without TLS, where another machine's
	// proxy speaks it: whoever is between reads along.
	Plain bool `toml:"plain"`
	// Nodes are other nodes of the same operator to show beside this one: a name,
	// and the control socket of its agent on this machine, such as one that
	// `ssh -L` forwards.
	Nodes map[string]string `toml:"nodes" sample:"'/run/banmesh-nodes/web2.sock'"`
}

// LAPI answers programs that enforce bans by CrowdSec's local API.
type LAPI struct {
	// Listen is an address or the path of a unix socket; without one nothing is
	// served.
	Listen      string   `toml:"listen" sample:"'127.0.0.1:8080'"`
	Certificate string   `toml:"certificate"`                          // a file with the certificate with which TCP speaks TLS
	Key         string   `toml:"key"`                                  // its private key
	ClientCA    string   `toml:"client_ca"`                            // a file with those who sign bouncers' certificates
	ClientUnits []string `toml:"client_units" sample:"['bouncer-ou']"` // organisational units that are bouncers'; the sample is the default
	// Origin is how decisions name their origin: "node" (here or network) or
	// "operator" (by name).
	Origin         string   `toml:"origin" sample:"'node'"`
	TrustedProxies []string `toml:"trusted_proxies"` // addresses and prefixes whose X-Forwarded-For names the bouncer
}

// CrowdSec answers CrowdSec itself as its central API: docs/compat/crowdsec.md.
type CrowdSec struct {
	// Listen is a loopback address; without one nothing is served.
	Listen string `toml:"listen" sample:"'127.0.0.1:8090'"`
	// Scenarios are topics by the whole names of scenarios, "" for none; the
	// usual ones are known.
	Scenarios map[string]string `toml:"scenarios"`
}

// Fail2ban is the neighbourhood of fail2ban: docs/compat/fail2ban.md.
type Fail2ban struct {
	// Socket answers fail2ban-client, exporters and panels as fail2ban's server
	// does: topics are jails. It has the permissions of the control socket.
	Socket string `toml:"socket" sample:"'/run/banmesh/fail2ban.sock'"`
	// Log is a file to which bans and their ends are written in the form of
	// fail2ban's log.
	Log string `toml:"log" sample:"'/var/log/banmesh/fail2ban.log'"`
	// Read is the log of a fail2ban beside this agent, whose bans are taken over.
	Read string `toml:"read" sample:"'/var/log/fail2ban.log'"`
	// Topics are those of jails that are named otherwise, "" for none.
	Topics map[string]string `toml:"topics"`
}

// Vallumd is a private broker to which vallumds listen: docs/compat/vallumd.md.
type Vallumd struct {
	// Name is that of the broker here: who speaks there is "vallumd:NAME".
	Name string `toml:"name" sample:"'home'"`
	// URL is tcp://HOST:PORT, ssl://HOST:PORT or unix:///PATH.
	URL          string `toml:"url" sample:"'ssl://broker.example.net:8883'"`
	User         string `toml:"user"`          // an account at the broker, where it asks for one
	PasswordFile string `toml:"password_file"` // a file with the account's password
	CAFile       string `toml:"ca_file"`       // a file with the certificates that may sign the broker's, in place of the system's
	CertFile     string `toml:"cert_file"`     // a certificate that this node shows
	KeyFile      string `toml:"key_file"`      // the private key of that certificate
	ServerName   string `toml:"server_name"`   // the name in the broker's certificate, where it is not the one of the address
	Fingerprint  string `toml:"fingerprint"`   // the SHA-256 of the broker's own certificate, in hex, in place of a name and an authority
	// Publish names the topics whose bans are told.
	Publish []string `toml:"publish" sample:"['sshd']"`
	// Accept names the topics for which those that others tell are taken.
	Accept []string `toml:"accept" sample:"['sshd']"`
	// Sets are the names of ipsets that are not their topic's.
	Sets map[string]string `toml:"sets" sample:"'blacklist'"`
	// Sets6 are the ipsets for IPv6 addresses; without one those are not told.
	Sets6 map[string]string `toml:"sets6" sample:"'blacklist6'"`
	// Timeout is that of the sets; bans that last longer are told again before it.
	Timeout Text `toml:"timeout" sample:"'1h'"`
	// Rule is the treatment of addresses that others tell: "watch" (default), "suspect" or "ban".
	Rule string `toml:"rule" sample:"'watch'"`
	For  Text   `toml:"for" sample:"'1d'"` // how long one counts after it was told last; the sample is the default
	// Live is how many of them count in a topic.
	Live int `toml:"live" sample:"10000"`
	// PerHour is how many new ones count in an hour, more where many are usual; the
	// rest waits for a person.
	PerHour int `toml:"per_hour" sample:"200"`
}

// SetsOf gives the names of a topic's ipsets; name6 is "" for none.
func (v Vallumd) SetsOf(topic string) (name, name6 string) {
	if name = v.Sets[topic]; name == "" {
		name = topic
	}
	return name, v.Sets6[topic]
}

// Broker gives the entry of its broker.
func (v Vallumd) Broker() Broker {
	return Broker{URL: v.URL, User: v.User, PasswordFile: v.PasswordFile, CAFile: v.CAFile, CertFile: v.CertFile, KeyFile: v.KeyFile, ServerName: v.ServerName, Fingerprint: v.Fingerprint}
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
