package settings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writePair(t *testing.T, dir string, serial int64, at time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestARenewedCertificateReachesNewClients(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	certFile, keyFile := writePair(t, dir, 1, now.Add(-time.Hour))
	c, err := newCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		c.looked = time.Time{}
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("serial %d", got)
	}
	// Half a renewal, then none at all, leave the old one in use.
	if err := os.WriteFile(keyFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d with half a renewal", got)
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d without a key", got)
	}
	writePair(t, dir, 2, now)
	if got := serial(); got != 2 {
		t.Errorf("serial %d after the renewal", got)
	}
}

func TestTheDefaultIsSound(t *testing.T) {
	o, err := Default().Options()
	if err != nil || len(o.Listeners) != 1 || o.Listeners[0].Address != "127.0.0.1:1883" {
		t.Errorf("%+v, %v", o, err)
	}
}

// Times read as in every other file of the project.
func TestTimesOfLimitsReadAsElsewhere(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1mo": 2629800 * time.Second, "1h 30m": 90 * time.Minute, "": 0} {
		f := Default()
		f.Limits.FeedAge = text
		if o, err := f.Options(); err != nil || o.Limits.FeedAge != want {
			t.Errorf("feed_age = %q: %v, %v", text, o.Limits.FeedAge, err)
		}
	}
	for _, text := range []string{"-1", "0", "fast"} {
		f := Default()
		f.Limits.FeedAge = text
		if _, err := f.Options(); err == nil {
			t.Errorf("feed_age = %q is taken", text)
		}
	}
}

func FuzzAConfigurationNeverPanics(f *testing.F) {
	f.Add([]byte("network = \"net\"\n[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:0\"\n"))
	f.Add([]byte("[limits]\nstall_time = \"1s\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse("x", b)
		if err != nil {
			return
		}
		file.Listeners = nil // no files are read
		_, _ = file.Options()
	})
}

func TestSharesOfTheStoreAreRead(t *testing.T) {
	const operator = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	text := "vouched = [\"" + operator + "\"]\n[[listeners]]\nkind = \"tcp\"\naddress = \"127.0.0.1:0\"\n[limits]\noperator_bytes = 2\nnewcomer_bytes = 1\n"
	f, err := Parse("broker.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Vouched) != 1 || o.Vouched[0].String() != operator || o.Limits.OperatorBytes != 2 || o.Limits.NewcomerBytes != 1 {
		t.Errorf("%v, %+v", o.Vouched, o.Limits)
	}
	for _, bad := range []string{"vouched = [\"x\"]\n", "[limits]\nnewcomer_bytes = -1\n"} {
		f, err := Parse("broker.toml", []byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Options(); err == nil || !strings.Contains(err.Error(), strings.Fields(strings.TrimPrefix(bad, "[limits]\n"))[0]) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
