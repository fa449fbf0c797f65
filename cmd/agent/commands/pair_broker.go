package commands

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/keys"
	"banmesh/internal/pairing"
)

// brokerPort is where the broker of a pairing host listens unless told otherwise: MQTT
// over TLS.
const brokerPort = "8883"

// askOwn asks whether this agent is to run the broker, and looks whether it could.
func (h *hosting) askOwn(c *cobra.Command) error {
	o := h.o
	q := newQuestions(c, o.yes)
	const no = "no broker that another machine reaches is named here"
	if !o.yes && !q.terminal {
		return cli.Hint(errors.New(no), "--yes lets this agent run one on %s with TLS; --broker URL names one", o.own)
	}
	if !q.ask(fmt.Sprintf("%s. Let this agent run one, with TLS, on %s?", strings.ToUpper(no[:1])+no[1:], o.own), true) {
		return &cli.Error{Err: errors.New("nothing was changed"), Code: cli.ExitPartly, Hint: "--broker URL hands over another one"}
	}
	if conf := h.conf.EmbeddedBroker; conf.Listen != o.own {
		l, err := net.Listen("tcp", o.own)
		if err != nil {
			return portAdvice(err, "--broker-listen :PORT takes another one")
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	_, fingerprint, err := keys.BrokerCertificate(h.p.state, time.Now())
	if err != nil {
		return err
	}
	h.own, h.brokers = true, []pairing.Broker{{URL: addressOf("ssl", o.own), Fingerprint: fingerprint}}
	return nil
}

// reachable are the brokers that another machine reaches.
func (h *hosting) reachable() (list []pairing.Broker, err error) {
	for _, u := range h.o.brokers {
		addresses := strings.Fields(u)
		if len(addresses) == 0 {
			return nil, cli.Usage("--broker names no address")
		}
		list = append(list, pairing.Broker{URL: addresses[0], Others: addresses[1:]})
	}
	if len(list) > 0 {
		return list, nil
	}
	for _, b := range h.conf.Brokers {
		all := slices.DeleteFunc(append([]string{b.URL}, b.Others...), here)
		if len(all) == 0 {
			continue
		}
		x := pairing.Broker{URL: all[0], Others: all[1:], Fingerprint: b.Fingerprint, ServerName: b.ServerName, Account: b.User != ""}
		if b.CAFile != "" {
			pem, err := os.ReadFile(b.CAFile)
			if err != nil {
				return nil, err
			}
			x.CA = string(pem)
		}
		list = append(list, x)
	}
	e := h.conf.EmbeddedBroker
	enabled := len(h.conf.Brokers) == 0
	if e.Enabled != nil {
		enabled = *e.Enabled
	}
	if scheme := map[bool]string{true: "ssl", false: "tcp"}[e.TLS]; enabled && e.Listen != "" && !here(scheme+"://"+e.Listen) {
		x := pairing.Broker{URL: addressOf(scheme, e.Listen)}
		if e.TLS {
			if _, x.Fingerprint, err = keys.BrokerCertificate(h.p.state, time.Now()); err != nil {
				return nil, err
			}
		}
		list = append(list, x)
	}
	return list, nil
}

// here says whether an address is of this machine alone.
func here(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "unix" {
		return true
	}
	if u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.Unmap().IsLoopback()
}

// addressOf is the URL of a listener, without a host where it listens everywhere.
func addressOf(scheme, listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return scheme + "://" + listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		return scheme + "://:" + port
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// ownAddresses are this machine's, those that others may reach, without the bridges of
// containers.
func ownAddresses() (list []string) {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 || strings.HasPrefix(l.Name, "docker") || strings.HasPrefix(l.Name, "br-") || strings.HasPrefix(l.Name, "veth") && len(l.Name) > 8 {
			continue
		}
		all, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				list = append(list, n.IP.String())
			}
		}
	}
	// IPv4 first: it is shorter to read aloud.
	slices.SortStableFunc(list, func(a, b string) int {
		return cmp.Compare(strings.Count(a, ":"), strings.Count(b, ":"))
	})
	return list
}

// portAdvice words the fault of a port that cannot be opened.
func portAdvice(err error, hint string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return cli.Hint(fmt.Errorf("%w: another program listens there", err), "%s", hint)
	}
	return err
}
