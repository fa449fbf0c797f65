package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"banmesh/internal/compat/lists"
)

// errPrivate says that a name or a redirection leads into a private network.
var errPrivate = errors.New("its address is not of the public internet")

// client makes the HTTP client of one list.
func (f *Fetcher) client(l lists.Origin) (*http.Client, error) {
	first, err := lists.CheckURL(l)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 15 * time.Second}
	guarded := &net.Dialer{Timeout: 15 * time.Second, Control: func(_, address string, _ syscall.RawConn) error { return mayDial(address) }}
	transport := &http.Transport{
		// No proxy: it would choose where a list comes from.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if l.Private && address == hostPort(first) {
				return dialer.DialContext(ctx, network, address)
			}
			return guarded.DialContext(ctx, network, address)
		},
		TLSClientConfig:        f.testingOnlyTLS,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // it is unpacked here, bounded
		ForceAttemptHTTP2:      true,
	}
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > redirections {
				return fmt.Errorf("more than %d redirections", redirections)
			}
			if _, err := lists.CheckURL(lists.Origin{URL: r.URL.String(), HTTP: l.HTTP && via[len(via)-1].URL.Scheme == "http"}); err != nil {
				return fmt.Errorf("it redirects to %.120q: %w", r.URL.Redacted(), err)
			}
			return nil
		},
	}, nil
}

// hostPort gives the host and port that a URL's connection is made to.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// mayDial refuses a connection to an address that is not of the public internet,
// after names were resolved: a name may change its address between two looks.
func mayDial(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if a := at.Addr().Unmap(); !isPublic(a) {
		return fmt.Errorf("%s: %w", a, errPrivate)
	}
	return nil
}

// special are networks beside those that package netip knows, which are not of the
// public internet: shared by customers of a provider, of protocols, of tests, reserved,
// and those in which an IPv6 address has an IPv4 address inside.
var special = func() (list []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4",
		"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16", "fec0::/10", "::/96",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}()

// isPublic says whether an address may be a list's server.
func isPublic(a netip.Addr) bool {
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
