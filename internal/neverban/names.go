package neverban

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Bounds of host names: each is asked for again and again, and each of its addresses
// goes into the kernel.
const (
	MaxNames         = 64
	MaxNameAddresses = 16
)

// A Name is a host whose addresses are never banned, whichever it has.
type Name struct {
	Host   string
	Reason string
	Until  time.Time // zero for good
}

// ErrName says that a text is no host name.
var ErrName = errors.New("no host name")

// ParseName checks a host name (RFC 1123): labels of letters, digits and
// hyphens, and a letter in the last one, so that no mistyped address is a name. One
// word alone is none but localhost.
func ParseName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	labels := strings.Split(name, ".")
	if len(labels) == 1 && name != "localhost" || len(name) > 253 || !strings.ContainsAny(labels[len(labels)-1], "abcdefghijklmnopqrstuvwxyz") {
		return "", fmt.Errorf("%.80q: %w", s, ErrName)
	}
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", fmt.Errorf("%.80q: %w", s, ErrName)
		}
	}
	return name, nil
}

// IsName says that a text is a host name, and no address and no prefix.
func IsName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	_, err := ParseName(s)
	return err == nil
}

// names adds the addresses of hosts that were named by hand, and asks for those that
// detection compares with.
func (d *discovery) names() {
	for i, n := range d.o.Names {
		if !n.Until.IsZero() && !n.Until.After(d.o.Now) {
			continue
		}
		if i >= MaxNames {
			d.faults = append(d.faults, fmt.Errorf("more than %d names: %s and those after it are left out", MaxNames, n.Host))
			break
		}
		reason := "the name " + n.Host
		if n.Reason != "" {
			reason += ": " + n.Reason
		}
		for _, a := range d.lookUp(n.Host) {
			if a = a.Unmap().WithZone(""); a.IsValid() && !a.IsUnspecified() {
				d.entries = append(d.entries, Entry{Prefix: netip.PrefixFrom(a, a.BitLen()), Source: SourceManual, Reason: reason, Until: n.Until})
			}
		}
	}
	for i, host := range d.o.Compared {
		if i >= MaxNames {
			d.faults = append(d.faults, fmt.Errorf("more than %d names in ignoreip: %s and those after it are left out", MaxNames, host))
			break
		}
		d.lookUp(host)
	}
}

// lookUp gives the first addresses of a host; the last ones known where no name server
// answers.
func (d *discovery) lookUp(host string) []netip.Addr {
	if d.o.Resolve == nil {
		return nil
	}
	addrs, err := d.o.Resolve(d.ctx, host)
	if err != nil {
		d.faults = append(d.faults, fmt.Errorf("looking up %s: %w", host, err))
	}
	if len(addrs) > MaxNameAddresses {
		d.faults = append(d.faults, fmt.Errorf("%s has %d addresses; the first %d count", host, len(addrs), MaxNameAddresses))
		addrs = addrs[:MaxNameAddresses]
	}
	return addrs
}
