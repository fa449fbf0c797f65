package lapi

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// A client certificate that the listener verified is a bouncer's by its unit,
// and by nothing else.
func TestAVerifiedCertificateOfTheRightUnitNeedsNoKey(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *Options) { o.Units = []string{"bouncer-ou"} })
	n.ban("192.0.2.7", "sshd", time.Hour)
	for _, c := range []struct {
		name, unit string
		verified   bool
		want       int
	}{
		{"edge", "bouncer-ou", true, 200}, {"edge", "agent-ou", true, 403}, {"edge", "bouncer-ou", false, 403}, {"../edge", "bouncer-ou", true, 403}, {"", "bouncer-ou", true, 403},
	} {
		x := &x509.Certificate{Subject: pkix.Name{CommonName: c.name, OrganizationalUnit: []string{c.unit}}}
		r := httptest.NewRequest("GET", "/v1/decisions?ip=192.0.2.7", nil)
		r.RemoteAddr = "192.0.2.99:4000"
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{x}}
		if c.verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{x}}
		}
		w := httptest.NewRecorder()
		if n.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
	if list := n.Clients(); len(list) != 1 || list[0].Name != "edge" || list[0].From.String() != "192.0.2.99" {
		t.Errorf("clients %+v", list)
	}
}

// Behind a proxy that is believed, the client is the last address that is no such
// proxy; anybody else's header is the client's own text.
func TestOnlyATrustedProxyNamesTheClient(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *Options) { o.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	for from, want := range map[string]string{"192.0.2.1:1": "198.51.100.7", "203.0.113.1:1": "203.0.113.1"} {
		r := httptest.NewRequest("GET", "/v1/decisions", nil)
		r.RemoteAddr = from
		r.Header.Set("X-Api-Key", n.key)
		r.Header.Set("X-Forwarded-For", "203.0.113.99, 198.51.100.7, 192.0.2.2")
		n.ServeHTTP(httptest.NewRecorder(), r)
		found := false
		for _, c := range n.Clients() {
			found = found || c.From.String() == want
		}
		if !found {
			t.Errorf("from %s: %+v, want %s", from, n.Clients(), want)
		}
	}
}
