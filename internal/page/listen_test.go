package page

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
)

// pair writes a certificate of a serial number and its key.
func pair(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "page"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"bans.example.org"},
	}
	public, err := x509.CreateCertificate(rand.Reader, of, of, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: secret}, cert: {Type: "CERTIFICATE", Bytes: public}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(serial, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// serving shows a page until the test ends.
func serving(t *testing.T, o Options) *Server {
	t.Helper()
	s := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	l, err := s.listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.at = l.Addr().String()
	over := make(chan error, 1)
	go func() { over <- s.serve(ctx, l, control.NewHandlerClient(newFake().handler())) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestOverTLSTheCookieIsOfThatAloneAndANewCertificateIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := pair(t, dir, 1)
	s := serving(t, Options{Listen: "127.0.0.1:0", Certificate: cert, Key: key})
	ask := func(method, path string, form url.Values) (*http.Response, int64) {
		t.Helper()
		client := &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", s.URL())
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp, resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if resp, serial := ask(http.MethodGet, "/alive", nil); resp.StatusCode != http.StatusOK || serial != 1 {
		t.Errorf("%s by certificate %d", resp.Status, serial)
	}
	token, _ := s.sessions.link()
	resp, _ := ask(http.MethodPost, "/sign-in", url.Values{"link": {token}})
	if c := resp.Cookies(); len(c) != 1 || !c[0].Secure || !strings.HasPrefix(c[0].Name, "__Host-banmesh-") || c[0].Path != "/" || c[0].Domain != "" {
		t.Errorf("%s with %+v", resp.Status, c)
	}
	pair(t, dir, 2)
	if _, serial := ask(http.MethodGet, "/alive", nil); serial != 2 {
		t.Errorf("certificate %d after it was replaced", serial)
	}
	// A file that is half written leaves the one in use.
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, serial := ask(http.MethodGet, "/alive", nil); serial != 2 {
		t.Errorf("certificate %d while it is being replaced", serial)
	}
	if _, err := New(Options{Listen: "127.0.0.1:0", Certificate: cert, Key: key}).listen(t.Context()); err == nil {
		t.Error("a page begins without a certificate that can be read")
	}
}

// Behind a proxy the page is a socket that knows its name.
func TestASocketAnswersByTheNameOfItsURL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.sock")
	s := serving(t, Options{Listen: path, URL: "https://bans.example.org"})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if l, _ := s.Open(); !strings.HasPrefix(l.URL, "https://bans.example.org/sign-in?link=") {
		t.Errorf("the link is %s", l.URL)
	}
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) }}}
	for host, want := range map[string]int{"bans.example.org": http.StatusOK, "localhost": http.StatusMisdirectedRequest, "127.0.0.1:7938": http.StatusMisdirectedRequest} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/alive", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("as %s: %s", host, resp.Status)
		}
	}
}

// Connections beyond the limit are closed at once, and a closed one makes room.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	taken := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(taken)
				return
			}
			taken <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-taken
	dial()
	second := <-taken
	if n, err := dial().Read(make([]byte, 1)); err == nil {
		t.Errorf("one more reads %d bytes", n)
	}
	first.Close()
	first.Close() // twice gives one place
	dial()
	third := <-taken
	if n, err := dial().Read(make([]byte, 1)); err == nil {
		t.Errorf("one more reads %d bytes again", n)
	}
	second.Close()
	third.Close()
	l.Close()
	<-taken
}
