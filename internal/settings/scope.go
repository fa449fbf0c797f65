package settings

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/gate"
	"banmesh/topics"
)

// faulter notes a fault of the value at a dotted path.
type faulter func(path, format string, args ...any)

// Enforcers that [firewall] can name.
const (
	EnforceNFTables = "nftables"
	EnforceIPSet    = "ipset"
	EnforceHook     = "hook"
)

// owners are the values of firewall.owner.
var owners = map[string]firewall.OwnerMode{"": firewall.OwnerAuto, "auto": firewall.OwnerAuto, "never": firewall.OwnerNever, "always": firewall.OwnerAlways}

// Bounds of embedded_broker.max_bytes.
const (
	embeddedLeast = 1 << 20
	embeddedMost  = 512 << 20 // a broker's own default
)

// checkEmbedded finds faults in [embedded_broker].
func checkEmbedded(c config.EmbeddedBroker, fault faulter) {
	if c.TLS && c.Listen == "" {
		fault("embedded_broker.tls", "TLS is for other machines: listen = \"[::]:8883\" beside it says where")
	}
	if c.MaxBytes != 0 && (c.MaxBytes < embeddedLeast || c.MaxBytes > embeddedMost) {
		fault("embedded_broker.max_bytes", "%d is not within %d and %d", c.MaxBytes, embeddedLeast, embeddedMost)
	}
}

// checkFirewall finds faults in [firewall]. It looks at the hook's
// program and runs nothing.
func checkFirewall(c config.Firewall, fault faulter) {
	switch c.Mode {
	case "", "enforce", "observe", "off":
	default:
		fault("firewall.mode", "%q is none of enforce, observe, off", c.Mode)
	}
	enforcer, err := enforcers.Find(c.Enforcer, Setup(c, ""))
	if err != nil {
		fault("firewall.enforcer", "%v", err)
	}
	if _, ok := owners[c.Owner]; !ok {
		fault("firewall.owner", "%q is none of auto, never, always", c.Owner)
	}
	if c.MaxBan < 0 || c.MaxBan > firewall.MaxCap {
		fault("firewall.max_bans", "%d is not within 1 and %d", c.MaxBan, firewall.MaxCap)
	}
	if c.Table != "" {
		if err := firewall.CheckTable(c.Table); err != nil {
			fault("firewall.table", "%v", err)
		}
	}
	switch {
	case c.Enforcer == EnforceHook:
		if err := enforcer.Check(); err != nil {
			fault("firewall.hook", "%v", err)
		}
	case len(c.Hook) > 0:
		fault("firewall.hook", "it is for the hook enforcer: enforcer = \"hook\"")
	}
	if c.IPTablesLegacy && c.Enforcer != EnforceIPSet {
		fault("firewall.iptables_legacy", "it is for the ipset enforcer: enforcer = \"ipset\"")
	}
	for _, x := range []struct {
		key string
		set bool
	}{{"owner", c.Owner != ""}, {"keep_sockets", c.KeepSockets}} {
		if x.set && c.Enforcer != "" && c.Enforcer != EnforceNFTables {
			fault("firewall."+x.key, "it is for the nftables enforcer, and this is %s", c.Enforcer)
		}
	}
}

// checkGate finds faults in [gate].
func checkGate(c config.Gate, fault faulter) {
	if c.Listen != "" {
		if _, err := gate.LoopbackAddress(c.Listen); err != nil {
			fault("gate.listen", "%v", err)
		}
	}
	if _, err := gate.ParseChain(c.Chain); err != nil {
		fault("gate.chain", "it is not an http or https URL")
	}
	if err := gate.CheckMessage(c.Message); err != nil {
		fault("gate.message", "%v", err)
	}
	if c.File != "" && !filepath.IsAbs(c.File) {
		fault("gate.file", "it is not an absolute path")
	}
	switch c.ChainFailure {
	case "", "refuse", "allow":
	default:
		fault("gate.chain_failure", "%q is none of refuse, allow", c.ChainFailure)
	}
}

// checkHTTP finds faults in [http], which serves lists to other programs.
func checkHTTP(c config.HTTP, fault faulter) {
	if c.Listen != "" {
		a, err := net.ResolveTCPAddr("tcp", c.Listen)
		switch {
		case err != nil:
			fault("http.listen", "%v; want an address and a port, such as 127.0.0.1:7937", err)
		case !a.IP.IsLoopback() && len(c.Allow) == 0 && c.TokenFile == "":
			fault("http.listen", "it is reached from other machines: say which in allow = [\"192.0.2.0/24\"], or name a token_file")
		}
	}
	if len(c.Appeal) > maxAppeal || strings.ContainsFunc(c.Appeal, unicode.IsControl) {
		fault("http.appeal", "it is one line of at most %d bytes", maxAppeal)
	}
	for _, p := range c.Allow {
		if _, err := ParseNetwork(p); err != nil {
			fault("http.allow", "%q is neither an address nor a prefix such as 10.0.0.0/8", p)
		}
	}
	for _, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			fault("http.trusted_proxies", "%q is no prefix such as 127.0.0.1/32", p)
		}
	}
	if c.ClientHeader != "" && len(c.TrustedProxies) == 0 {
		fault("http.client_header", "it needs trusted_proxies: anybody else could write the header")
	}
}

// maxAppeal is a sentence or two.
const maxAppeal = 500

// ParseNetwork reads an address or a prefix as a prefix.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// checkLAPI finds faults in [lapi], which answers programs that enforce bans.
func (s *Settings) checkLAPI(c config.LAPI, fault faulter) {
	network := c.Listen != "" && !strings.HasPrefix(c.Listen, "/")
	if network {
		a, err := net.ResolveTCPAddr("tcp", c.Listen)
		switch {
		case err != nil:
			fault("lapi.listen", "%v; want an address and a port, such as 127.0.0.1:8080, or the path of a socket", err)
		case !a.IP.IsLoopback() && c.Certificate == "":
			s.warnings = append(s.warnings, "[lapi] is reached from other machines without TLS: whoever listens on the way reads the bouncers' keys (certificate and key in [lapi], or a tunnel)")
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		fault("lapi.certificate", "certificate and key go together")
	}
	if c.Certificate != "" && c.Listen != "" && !network {
		fault("lapi.certificate", "a unix socket speaks no TLS")
	}
	if c.ClientCA != "" && c.Certificate == "" {
		fault("lapi.client_ca", "it needs a certificate of our own: clients show theirs over TLS alone")
	}
	if len(c.ClientUnits) > 0 && c.ClientCA == "" {
		fault("lapi.client_units", "it needs client_ca")
	}
	switch c.Origin {
	case "", "node", "operator":
	default:
		fault("lapi.origin", "%q is none of node, operator", c.Origin)
	}
	for _, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			fault("lapi.trusted_proxies", "%q is no prefix such as 127.0.0.1/32", p)
		}
	}
}

// scopeOf gives the ports that a ban in a topic closes, the limits, and whom the
// kernel remembers.
func scopeOf(d *topics.Definition, c config.Topic, f config.Firewall, observe bool) (firewall.Scope, error) {
	scope := firewall.Scope{Topic: d.Name, Observe: observe, All: d.Enforce.AllPorts, Ports: c.Ports, Protocols: d.Enforce.Protocols}
	if c.AllPorts != nil {
		scope.All = *c.AllPorts
	}
	if c.Protocols != nil {
		scope.Protocols = c.Protocols
	}
	if len(scope.Ports) == 0 {
		ranges, err := d.Enforce.PortRanges()
		if err != nil {
			return scope, fmt.Errorf("ports: %w", err)
		}
		for _, r := range ranges {
			if int(r[1])-int(r[0])+len(scope.Ports) >= firewall.MaxPorts {
				return scope, fmt.Errorf("ports: more than %d; use all_ports = true", firewall.MaxPorts)
			}
			for port := int(r[0]); port <= int(r[1]); port++ {
				scope.Ports = append(scope.Ports, uint16(port))
			}
		}
	}
	enforcer, err := enforcers.Find(f.Enforcer, Setup(f, ""))
	kernel := err == nil && enforcer.Tracks()
	if c.MaxConnections != nil {
		if *c.MaxConnections < 1 || *c.MaxConnections > 1<<20 {
			return scope, fmt.Errorf("max_connections: %d is not within 1 and %d", *c.MaxConnections, 1<<20)
		}
		if !kernel {
			return scope, fmt.Errorf("max_connections: only the nftables enforcer limits connections, and this is %s", f.Enforcer)
		}
		scope.MaxConnections = uint32(*c.MaxConnections)
	}
	if d.Detect != nil && c.Corroborate != "off" {
		remember := d.Detect.Corroborate.Duration()
		if remember != 0 && len(scope.Ports) == 0 {
			return scope, errors.New("corroborate: the topic names no port whose peers could be remembered; corroborate = \"off\" believes the log")
		}
		if kernel && len(scope.Ports) > 0 {
			scope.Remember = cmp.Or(remember, DefaultRemember)
		}
	}
	if scope.All && scope.MaxConnections == 0 && scope.Remember == 0 {
		scope.Ports, scope.Protocols = nil, nil
	}
	return scope, scope.Check()
}

// DefaultRemember is how long the kernel remembers the connections of a topic
// whose definition does not say it: longer than a client can be silent before a
// line is written of it, and than a log is read late.
const DefaultRemember = time.Hour

// Setup finds the traces of the enforcer that [firewall] names; sw is
// the switch of one that has none in the kernel.
func Setup(f config.Firewall, sw string) firewall.Setup {
	return firewall.Setup{Table: f.Table, Hook: f.Hook, IPTablesLegacy: f.IPTablesLegacy, Switch: sw}
}

// Enforcer gives the enforcer that the settings name.
func (s *Settings) Enforcer(sw string) (firewall.Enforcer, error) {
	return enforcers.Find(s.config.Firewall.Enforcer, Setup(s.config.Firewall, sw))
}

// HoneyportTopic is the topic of those who touch a honeyport.
const HoneyportTopic ban.Topic = "honeyport"

// checkHoneyport finds faults in [honeyport].
func checkHoneyport(c config.Honeyport, f config.Firewall, fault faulter) {
	if len(c.Ports) > firewall.MaxHoneyports {
		fault("honeyport.ports", "%d ports are more than %d", len(c.Ports), firewall.MaxHoneyports)
	}
	for i, p := range c.Ports {
		if p == 0 {
			fault(fmt.Sprintf("honeyport.ports.%d", i), "0 is not a port")
		}
	}
	if e, err := enforcers.Find(f.Enforcer, Setup(f, "")); len(c.Ports) > 0 && err == nil && !e.Tracks() {
		fault("honeyport.ports", "only the nftables enforcer watches ports, and this is %s", e.Name())
	}
}

// checkHoneyportTopics refuses honeyports at which a topic of this node is at
// home: its service may be stopped, and its customers are no attackers.
func (s *Settings) checkHoneyportTopics() error {
	for _, t := range s.topics {
		if !t.Detect {
			continue
		}
		for _, p := range s.config.Honeyport.Ports {
			if slices.Contains(t.Scope.Ports, p) {
				return s.config.At("honeyport.ports", "%d is a port of %s, which this node detects", p, t.Topic)
			}
		}
	}
	return nil
}

// FirewallConfig is everything that an enforcer is told but the bans.
func (s *Settings) FirewallConfig() firewall.Config {
	f := s.config.Firewall
	c := firewall.Config{Table: f.Table, Cap: f.MaxBan, Owner: owners[f.Owner], KeepSockets: f.KeepSockets, Honeyports: s.config.Honeyport.Ports}
	for _, t := range s.topics {
		if t.Definition.Target == "ip" {
			c.Scopes = append(c.Scopes, t.Scope)
		}
	}
	return c
}

// NeedsRestart names a setting of the machine's side that a running agent does
// not take over, or "".
func NeedsRestart(old, next *Settings) string {
	a, b := old.config.Firewall, next.config.Firewall
	if (a.Mode == "off") == (b.Mode == "off") {
		a.Mode = b.Mode // observe and enforce are followed at once
	}
	a.MaxBan, a.KeepSockets = b.MaxBan, b.KeepSockets
	for _, x := range []struct {
		what      string
		old, next any
	}{
		{"the firewall's enforcer", a, b},
		{"what is served over HTTP", old.config.HTTP, next.config.HTTP},
		{"the page", old.config.Page, next.config.Page},
		{"what bouncers are answered", old.config.LAPI, next.config.LAPI},
		{"what is done for fail2ban", old.config.Fail2ban, next.config.Fail2ban},
		{"what CrowdSec is answered", old.config.CrowdSec, next.config.CrowdSec},
		{"what vallumd is told", old.config.Vallumd, next.config.Vallumd},
		{"the guests", old.config.Guests, next.config.Guests},
	} {
		if !reflect.DeepEqual(x.old, x.next) {
			return x.what
		}
	}
	return ""
}
