package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// A certificate is read again when its files change, so that a renewal reaches
// new clients without a restart. Files that do not fit leave the old one in
// use.
type certificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	current *tls.Certificate
	changed [2]time.Time
	looked  time.Time
}

// lookEvery is how often the files' dates are looked at, at most.
const lookEvery = 5 * time.Second

func newCertificate(certFile, keyFile string) (*certificate, error) {
	if certFile == "" || keyFile == "" {
		return nil, errors.New("cert_file and key_file are needed")
	}
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) load() error {
	dates, err := c.dates()
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	c.current, c.changed = &pair, dates
	return nil
}

func (c *certificate) dates() (dates [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return dates, err
		}
		dates[i] = info.ModTime()
	}
	return dates, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > lookEvery || now.Before(c.looked) {
		c.looked = now
		if dates, err := c.dates(); err == nil && dates != c.changed {
			_ = c.load() // half a renewal: the next look finds the other half
		}
	}
	return c.current, nil
}
