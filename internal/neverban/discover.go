package neverban

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banmesh/internal/procnet"
)

// Options say where to look.
type Options struct {
	// Brokers are the hosts of the MQTT brokers, names or addresses.
	Brokers []string
	// Names are hosts whose addresses are entries. Compared are hosts whose addresses
	// others compare with: they are looked up, and are no entries.
	Names    []Name
	Compared []string
	// Extra entries are written by hand or come from signed lists. Those that
	// are over are left out.
	Extra []Entry
	// Lab prefixes are private or documentation networks in which peers may
	// ban; see [Bogons].
	Lab []netip.Prefix
	// Root is the root of the file system; "" is the real one.
	Root string
	// Resolve looks a name up; nil: names are left out.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Network gives addresses and routes; nil: the kernel's.
	Network func() (Network, error)
	Now     time.Time
}

// Network is this machine's network by the kernel's word.
type Network struct {
	Addresses []Address
	Gateways  []Gateway
}

// Address is one address of an interface.
type Address struct {
	Prefix    netip.Prefix // with the address's own bits, not masked
	Peer      netip.Prefix // the far end of a point-to-point link, or invalid
	Interface string
	Kind      string // the kernel's link kind: "bridge", "wireguard", "tun", ""
}

// Gateway is the next hop of a route.
type Gateway struct {
	Addr      netip.Addr
	Interface string
	Default   bool
}

// resolveWait bounds all look-ups of names together: discovery runs at start
// and must not wait for a broken resolver.
const resolveWait = 3 * time.Second

// Discover gives all entries, sorted, and the set of them. Sources that it cannot read
// is an error next to everything that it could: a set that lacks an entry is better
// than none.
func Discover(ctx context.Context, o Options) (Set, []Entry, error) {
	if o.Network == nil {
		o.Network = kernel
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWait)
	defer cancel()
	d := discovery{o: o, ctx: ctx}
	for _, e := range o.Extra {
		if e.Until.IsZero() || e.Until.After(o.Now) {
			d.entries = append(d.entries, e)
		}
	}
	d.network()
	d.resolvers()
	d.timeServers()
	for _, host := range o.Brokers {
		d.host(host, SourceBroker, "MQTT broker "+host)
	}
	d.names()
	d.administrators()
	clouds, err := Clouds()
	if err != nil {
		d.faults = append(d.faults, fmt.Errorf("addresses of clouds: %w", err))
	}
	d.entries = append(append(d.entries, clouds...), Bogons(o.Lab)...)
	// Of equal prefixes the first, and so the most telling, stays.
	seen := map[netip.Prefix]bool{}
	d.entries = slices.DeleteFunc(d.entries, func(e Entry) bool {
		if seen[e.Prefix] {
			return true
		}
		seen[e.Prefix] = true
		return false
	})
	slices.SortFunc(d.entries, func(a, b Entry) int {
		return cmp.Or(strings.Compare(string(a.Source), string(b.Source)), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return NewSet(d.entries), d.entries, errors.Join(d.faults...)
}

// discovery collects entries and faults.
type discovery struct {
	o       Options
	ctx     context.Context
	entries []Entry
	faults  []error
}

func (d *discovery) addr(a netip.Addr, source Source, reason string) {
	a = a.Unmap().WithZone("")
	if a.IsValid() && !a.IsUnspecified() {
		d.entries = append(d.entries, Entry{Prefix: netip.PrefixFrom(a, a.BitLen()), Source: source, Reason: reason})
	}
}

func (d *discovery) prefix(p netip.Prefix, source Source, reason string) {
	if p.IsValid() && p.Bits() > 0 {
		d.entries = append(d.entries, Entry{Prefix: p.Masked(), Source: source, Reason: reason})
	}
}

// host adds a name's addresses, or an address.
func (d *discovery) host(host string, source Source, reason string) {
	if a, err := netip.ParseAddr(host); err == nil {
		d.addr(a, source, reason)
		return
	}
	if d.o.Resolve == nil || host == "" {
		return
	}
	addrs, err := d.o.Resolve(d.ctx, host)
	if err != nil {
		d.faults = append(d.faults, fmt.Errorf("looking up %s: %w", host, err))
	}
	for _, a := range addrs {
		d.addr(a, source, reason)
	}
}

// read gives a file below the root; one that is missing is empty.
func (d *discovery) read(path string) []byte {
	const most = 1 << 20 // none of these files is near this
	f, err := os.Open(filepath.Join("/", d.o.Root, path))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			d.faults = append(d.faults, fmt.Errorf("looking for what must stay reachable: %w", err))
		}
		return nil
	}
	defer f.Close()
	b := make([]byte, 0, 4096)
	buf := make([]byte, 4096)
	for len(b) < most {
		n, err := f.Read(buf)
		b = append(b, buf[:n]...)
		if err != nil || n == 0 {
			break
		}
	}
	return b
}

// network adds own addresses, gateways, bridges and tunnels. A public network
// that an address lies in is not exempt as a whole: in a hoster's /24 the
// neighbours are strangers.
func (d *discovery) network() {
	n, err := d.o.Network()
	if err != nil {
		d.faults = append(d.faults, fmt.Errorf("asking the kernel for addresses and routes: %w", err))
	}
	for _, a := range n.Addresses {
		addr := a.Prefix.Addr()
		d.addr(addr, SourceOwn, "this machine, on "+a.Interface)
		switch {
		case addr.IsLoopback() || addr.IsLinkLocalUnicast():
		case isContainer(a.Interface, a.Kind):
			d.prefix(a.Prefix, SourceContainer, "network of the bridge "+a.Interface)
		case isTunnel(a.Interface, a.Kind):
			d.prefix(a.Prefix, SourceVPN, "network of the tunnel "+a.Interface)
		}
		if a.Peer.IsValid() && a.Peer.Addr() != addr {
			d.addr(a.Peer.Addr(), SourceVPN, "far end of "+a.Interface)
		}
	}
	for _, g := range n.Gateways {
		reason := "gateway on " + g.Interface
		if g.Default {
			reason = "default gateway on " + g.Interface
		}
		d.addr(g.Addr, SourceGateway, reason)
	}
}

// isContainer knows bridges of container and virtual-machine runtimes. A
// bridge with another name may be the way to the Internet, with strangers in it.
func isContainer(name, kind string) bool {
	if kind != "bridge" {
		return false
	}
	for _, prefix := range []string{"docker", "br-", "cni", "podman", "lxc", "lxd", "incus", "virbr", "cbr", "kube-bridge", "nerdctl"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func isTunnel(name, kind string) bool {
	switch kind {
	case "wireguard", "tun", "ppp", "ipip", "gre", "sit", "vti", "xfrm":
		return true
	}
	return strings.HasPrefix(name, "wg") || strings.HasPrefix(name, "tun") || strings.HasPrefix(name, "tailscale") || strings.HasPrefix(name, "ppp")
}

// resolvers adds the name servers, also those behind systemd-resolved's stub.
func (d *discovery) resolvers() {
	for _, path := range []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"} {
		for _, fields := range lines(d.read(path)) {
			if len(fields) > 1 && fields[0] == "nameserver" {
				if a, err := netip.ParseAddr(fields[1]); err == nil {
					d.addr(a, SourceResolver, "DNS server of /"+path)
				}
			}
		}
	}
}

// timeServers adds NTP servers: those that the configurations name, and those
// that a daemon talks to now.
func (d *discovery) timeServers() {
	for _, path := range []string{"etc/chrony/chrony.conf", "etc/chrony.conf", "etc/ntp.conf", "etc/ntpsec/ntp.conf"} {
		for _, fields := range lines(d.read(path)) {
			if len(fields) > 1 && (fields[0] == "server" || fields[0] == "pool" || fields[0] == "peer") {
				d.host(fields[1], SourceTime, "time server "+fields[1]+" of /"+path)
			}
		}
	}
	const timesyncd = "etc/systemd/timesyncd.conf"
	for _, fields := range lines(d.read(timesyncd)) {
		line := strings.Join(fields, " ")
		key, value, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); ok && (key == "NTP" || key == "FallbackNTP") {
			for _, host := range strings.Fields(value) {
				d.host(host, SourceTime, "time server "+host+" of /"+timesyncd)
			}
		}
	}
	for _, path := range []string{"proc/net/udp", "proc/net/udp6"} {
		for _, s := range procnet.Parse(d.read(path)) {
			if s.Remote.Port() == 123 {
				d.addr(s.Remote.Addr(), SourceTime, "time server in use")
			}
		}
	}
}

// lines splits a configuration file into fields, without comments.
func lines(b []byte) [][]string {
	var list [][]string
	for line := range strings.Lines(string(b)) {
		if i := strings.IndexAny(line, "#;!%"); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			list = append(list, fields)
		}
	}
	return list
}
