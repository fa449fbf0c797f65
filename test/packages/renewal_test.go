package packages

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banmesh/internal/broker"
	"banmesh/internal/broker/settings"
)

// lineage writes a certificate as certbot keeps one.
func lineage(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"broker.example.org"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "fullchain.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "privkey.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// TestARenewedCertificateReachesTheBroker runs certbot's deploy hook for a renewal: the
// broker that runs serves the new certificate to the next client, without a restart.
func TestARenewedCertificateReachesTheBroker(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the hook gives files to a group")
	}
	live, to := t.TempDir(), filepath.Join(t.TempDir(), "tls")
	hook := func(name string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "../../deploy/certbot/banmesh-broker.sh")
		c.Env = append(os.Environ(), "RENEWED_LINEAGE="+live, "BANMESH_TLS_DIR="+to, "BANMESH_TLS_GROUP=nogroup", "BANMESH_TLS_NAME="+name)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("the hook: %v\n%s", err, out)
		}
	}
	lineage(t, live, 1)
	hook("another.example.org")
	if _, err := os.Stat(to); err == nil {
		t.Error("another certificate's renewal is handed over")
	}
	hook("")
	for name, mode := range map[string]os.FileMode{".": 0o750, "privkey.pem": 0o640, "fullchain.pem": 0o640} {
		if info, err := os.Stat(filepath.Join(to, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	f, err := settings.Parse("broker.toml", fmt.Appendf(nil, "[[listeners]]\nkind = \"tls\"\naddress = \"127.0.0.1:0\"\ncert_file = %q\nkey_file = %q\n", to+"/fullchain.pem", to+"/privkey.pem"))
	must(t, err)
	o, err := f.Options()
	must(t, err)
	b, err := broker.New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-ended) })
	serial := func() int64 {
		t.Helper()
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
		c, err := d.DialContext(t.Context(), "tcp", b.Addr().String())
		must(t, err)
		defer c.Close()
		return c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Fatalf("it serves certificate %d", n)
	}
	lineage(t, live, 2)
	hook("")
	for serial() != 2 {
		time.Sleep(200 * time.Millisecond) // it looks every five seconds
	}
}
