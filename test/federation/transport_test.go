package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.next++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	change(c)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(a.path(name+file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed, key
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// share lets two agents with these broker sections share a ban.
func share(t *testing.T, brokers string) {
	t.Helper()
	alice, bob := newNode(t, "alice"), newNode(t, "bob")
	alice.brokers, bob.brokers = brokers, brokers
	alice.configure(publishing)
	bob.configure(accepting + "ban = \"any of alice\"\n" + trusts(alice))
	alice.start()
	bob.start()
	alice.bans("203.0.113.1")
	eventually(t, "the ban", bob.has("203.0.113.1"))
}

// refused says that an agent with these broker sections does not get in.
func refused(t *testing.T, brokers string) {
	t.Helper()
	n := newNode(t, "stranger")
	n.brokers = brokers
	n.configure(publishing)
	n.start()
	eventually(t, "the reason is shown", func() bool { b := n.status().Brokers; return len(b) == 1 && b[0].Error != "" })
	if n.status().Brokers[0].Connected {
		t.Error("a stranger got in")
	}
}

func TestABrokerWithTLSAndClientCertificates(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue("server", func(*x509.Certificate) {})
	a.issue("client", func(*x509.Certificate) {})
	s := mosquitto(t, "cafile "+a.path("ca.pem"), "certfile "+a.path("server.pem"), "keyfile "+a.path("server.key"), "require_certificate true", "allow_anonymous true")
	url := fmt.Sprintf("ssl://127.0.0.1:%d", s.port)
	known := fmt.Sprintf("[[brokers]]\nurl = %q\nca_file = %q\n", url, a.path("ca.pem"))
	share(t, known+fmt.Sprintf("cert_file = %q\nkey_file = %q\n", a.path("client.pem"), a.path("client.key")))
	refused(t, known) // no certificate of its own
	refused(t, fmt.Sprintf("[[brokers]]\nurl = %q\n", url))
}

func TestABrokerWithAccounts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("mosquitto_passwd"); err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	dir := t.TempDir()
	accounts, secret := filepath.Join(dir, "accounts"), filepath.Join(dir, "secret")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", accounts, "fleet", "swordfish").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range map[string]string{secret: "swordfish\n", secret + ".wrong": "herring\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := mosquitto(t, "allow_anonymous false", "password_file "+accounts)
	section := func(file string) string {
		return fmt.Sprintf("[[brokers]]\nurl = %q\nuser = \"fleet\"\npassword_file = %q\n", s.url(), file)
	}
	share(t, section(secret))
	refused(t, section(secret+".wrong"))
}

// TestEveryTransportOfOurBroker has agents prove their keys to the community
// broker, however MQTT is carried.
func TestEveryTransportOfOurBroker(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "broker")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/broker").CombinedOutput(); err != nil {
		t.Fatalf("building the broker: %v\n%s", err, out)
	}
	a := newAuthority(t)
	a.issue("server", func(*x509.Certificate) {})
	for kind, scheme := range map[string]string{"tcp": "tcp", "tls": "ssl", "ws": "ws", "wss": "wss"} {
		t.Run(kind, func(t *testing.T) {
			s := &server{t: t, port: freePort(t)}
			dir := t.TempDir()
			text := fmt.Sprintf("network = \"testnet\"\nnames = [\"127.0.0.1\"]\nstate_dir = %q\n[[listeners]]\nkind = %q\naddress = \"127.0.0.1:%d\"\n", filepath.Join(dir, "state"), kind, s.port)
			section := fmt.Sprintf("[[brokers]]\nurl = \"%s://127.0.0.1:%d\"\n", scheme, s.port)
			if kind == "tls" || kind == "wss" {
				text += fmt.Sprintf("cert_file = %q\nkey_file = %q\n", a.path("server.pem"), a.path("server.key"))
				section += fmt.Sprintf("ca_file = %q\n", a.path("ca.pem"))
			}
			config := filepath.Join(dir, "broker.toml")
			if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			s.args = []string{binary, "run", "--config", config, "--socket", filepath.Join(dir, "s")}
			s.start()
			t.Cleanup(s.stop)
			share(t, section)
		})
	}
}

// TestTheDeployedMosquitto runs the configuration that deploy/ has for people.
func TestTheDeployedMosquitto(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "mosquitto", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	acl := filepath.Join(t.TempDir(), "banmesh.acl")
	if err := os.WriteFile(acl, []byte(read("banmesh.acl")), 0o644); err != nil {
		t.Fatal(err)
	}
	text := read("mosquitto.conf")
	for _, r := range [][2]string{{"listener 1883\n", ""}, {"/etc/mosquitto/banmesh.acl", acl}, {"persistence true", "persistence false"}} {
		if !strings.Contains(text, r[0]) {
			t.Fatalf("mosquitto.conf no longer has %q", r[0])
		}
		text = strings.Replace(text, r[0], r[1], 1)
	}
	s := mosquitto(t, text)
	share(t, fmt.Sprintf("[[brokers]]\nurl = %q\n", s.url()))
}
