package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/wholefile"
)

// certificateFile has the certificate and the key with which this machine's own broker
// speaks TLS, both in one file, so that a crash leaves no half of the two.
const certificateFile = "broker.pem"

// certificateLife is beyond that of any machine: other nodes know the certificate by its
// fingerprint, and nothing looks at its dates.
const certificateLife = 50 * 365 * 24 * time.Hour

// BrokerCertificate gives the certificate of this machine's own broker, made at the first
// call, and its fingerprint: SHA-256 in hex.
func BrokerCertificate(dir string, now time.Time) (c tls.Certificate, fingerprint string, err error) {
	path := filepath.Join(dir, certificateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newCertificate(now); err == nil {
			err = wholefile.Write(path, b, 0o600)
		}
	}
	if err == nil {
		c, err = tls.X509KeyPair(b, b)
	}
	if err != nil {
		return c, "", fmt.Errorf("the broker's certificate, %s: %w", path, err)
	}
	return c, Fingerprint(c.Certificate[0]), nil
}

// Fingerprint is that of a certificate, SHA-256 of its DER form in hex.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// newCertificate gives a key and a certificate that it signs itself, as PEM.
func newCertificate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "banmesh broker"}, DNSNames: []string{"banmesh"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}
