package settings

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"

	"banmesh/internal/config"
	"banmesh/internal/federation"
)

// checkBrokers finds faults in the entries of brokers.
func checkBrokers(list []config.Broker, fault faulter) {
	for i, b := range list {
		at := func(key string) string { return fmt.Sprintf("brokers.%d.%s", i, key) }
		for j, text := range append([]string{b.URL}, b.Others...) {
			key := at("url")
			if j > 0 {
				key = at("others")
			}
			if err := checkURL(text); err != nil {
				fault(key, "%v", err)
			}
		}
		if n := 1 + len(b.Others); len(b.Monitors) > 0 && len(b.Monitors) != n {
			fault(at("monitors"), "%d addresses of monitoring for the %d of url and others: want one for each, in the same order", len(b.Monitors), n)
		}
		for _, text := range b.Monitors {
			if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" {
				fault(at("monitors"), "%q: want http://HOST:PORT or https://HOST:PORT", text)
			}
		}
		checkBrokerFiles(fmt.Sprintf("brokers.%d", i), b, fault)
	}
}

// checkBrokerFiles finds faults in the files and the certificate that a broker's entry names. They
// would otherwise be found by the next start. Who may not read them may still ask other
// things of the configuration.
func checkBrokerFiles(at string, b config.Broker, fault faulter) {
	if b.Fingerprint != "" {
		if n, err := hex.DecodeString(b.Fingerprint); err != nil || len(n) != sha256.Size {
			fault(at+".fingerprint", "want the SHA-256 of the broker's certificate, %d characters of hex", 2*sha256.Size)
		}
		if b.CAFile != "" || b.ServerName != "" {
			fault(at+".fingerprint", "with it, ca_file and server_name have no meaning: leave them out")
		}
	}
	there := true
	for key, file := range map[string]string{"password_file": b.PasswordFile, "ca_file": b.CAFile, "cert_file": b.CertFile, "key_file": b.KeyFile} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			fault(at+"."+key, "%v", err)
			there = false
		}
	}
	if !there {
		return
	}
	if _, err := BrokerOf(b); err != nil && !errors.Is(err, fs.ErrPermission) {
		fault(at, "%v", err)
	}
}

// onceEach leaves out addresses that an entry before has: a broker takes a node
// once, so two connections to it would push each other off for ever.
func (s *Settings) onceEach(list []config.Broker) (out []config.Broker) {
	taken := map[string]bool{}
	for _, b := range list {
		var addresses, monitors []string
		for i, text := range append([]string{b.URL}, b.Others...) {
			if taken[text] {
				s.warnings = append(s.warnings, fmt.Sprintf("brokers: %s is named twice; the second is left out, for a broker takes a node once", text))
				continue
			}
			taken[text] = true
			addresses = append(addresses, text)
			if i < len(b.Monitors) {
				monitors = append(monitors, b.Monitors[i])
			}
		}
		if len(addresses) == 0 {
			continue
		}
		b.URL, b.Others, b.Monitors = addresses[0], addresses[1:], monitors
		out = append(out, b)
	}
	return out
}

// checkURL finds a fault in a broker's address.
func checkURL(text string) error {
	const want = "want tcp://HOST:PORT, ssl://, ws://, wss:// or unix:///PATH"
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%q: %s", text, want)
	}
	switch u.Scheme {
	case "tcp", "ssl", "ws", "wss":
		if u.Hostname() == "" {
			return fmt.Errorf("%q names no host", text)
		}
		if port := u.Port(); port != "" {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return fmt.Errorf("%q: no port has the number %s", text, port)
			}
		}
	case "unix":
		if u.Path == "" {
			return fmt.Errorf("%q names no path: %s", text, want)
		}
	default:
		return fmt.Errorf("%q: %s", text, want)
	}
	if u.User != nil {
		return errors.New("a password does not belong there; use user and password_file")
	}
	return nil
}

// BrokerOf reads a broker's entry and the files that it names.
func BrokerOf(b config.Broker) (federation.Broker, error) {
	x := federation.Broker{URL: b.URL, Others: b.Others, User: b.User}
	if b.PasswordFile != "" {
		f, err := os.Open(b.PasswordFile)
		if err != nil {
			return x, err
		}
		defer f.Close()
		line := bufio.NewScanner(f)
		line.Scan()
		if x.Password = line.Text(); line.Err() != nil || x.Password == "" {
			return x, errors.Join(fmt.Errorf("%s holds no password", b.PasswordFile), line.Err())
		}
	}
	if b.CAFile == "" && b.CertFile == "" && b.ServerName == "" && b.Fingerprint == "" {
		return x, nil
	}
	x.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: b.ServerName}
	if b.Fingerprint != "" {
		want := strings.ToLower(b.Fingerprint)
		x.TLS.InsecureSkipVerify = true // the fingerprint takes the place of names, signers and dates
		x.TLS.VerifyConnection = func(s tls.ConnectionState) error {
			sum := sha256.Sum256(s.PeerCertificates[0].Raw)
			if got := hex.EncodeToString(sum[:]); got != want {
				return fmt.Errorf("the broker's certificate has the fingerprint %s, not %s", got, want)
			}
			return nil
		}
	}
	if b.CAFile != "" {
		pem, err := os.ReadFile(b.CAFile)
		if err != nil {
			return x, err
		}
		x.TLS.RootCAs = x509.NewCertPool()
		if !x.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return x, fmt.Errorf("%s holds no certificate", b.CAFile)
		}
	}
	if b.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(b.CertFile, b.KeyFile)
		if err != nil {
			return x, err
		}
		x.TLS.Certificates = []tls.Certificate{pair}
	}
	return x, nil
}
