package pairing

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// Limits of an offer.
const (
	maxBrokers = 8
	maxTopics  = 64
	maxURL     = 256
	maxCA      = 64 << 10
)

// A Request is the first sealed message: the joiner's node key, signed by itself.
type Request struct {
	Node string `json:"node"` // as [wire.SignRequest] writes it
}

// Key reads the node's public key.
func (r Request) Key() (wire.PublicKey, error) {
	key, _, err := wire.ParseRequest(r.Node)
	return key, err
}

// An Offer is the host's answer: all that a machine of the same operator needs.
type Offer struct {
	Card    string   `json:"card"` // certifies the joiner's node; as [wire.CardText] writes it
	Network string   `json:"network"`
	Brokers []Broker `json:"brokers"`
	// Accept and Publish are the topics that the host's machines share.
	Accept  []ban.Topic `json:"accept"`
	Publish []ban.Topic `json:"publish"`
}

// A Broker is where the network is. A host that runs the broker itself leaves the
// host name out (ssl://:8883), because the joiner knows by which it reached it.
type Broker struct {
	URL         string   `json:"url"`
	Others      []string `json:"others,omitempty"`
	CA          string   `json:"ca,omitempty"`          // PEM, in place of the system's
	Fingerprint string   `json:"fingerprint,omitempty"` // of the certificate, SHA-256 in hex
	ServerName  string   `json:"server_name,omitempty"`
	// Account says that the broker asks for a user and a password, which are not
	// handed over.
	Account bool `json:"account,omitempty"`
}

// check finds the fault of an offer, gives its card, and fills in the host where a
// broker's address lacks it.
func (o *Offer) check(host string, node wire.PublicKey, now time.Time) (*wire.Card, error) {
	card, _, err := wire.ParseCardText([]byte(o.Card))
	if err != nil {
		return nil, fmt.Errorf("its card: %w", err)
	}
	if err := card.Certifies(node, now); err != nil {
		return nil, fmt.Errorf("its card does not certify this node: %w", err)
	}
	if err := wire.CheckNetwork(o.Network); err != nil {
		return nil, err
	}
	if len(o.Brokers) == 0 || len(o.Brokers) > maxBrokers {
		return nil, fmt.Errorf("it names %d brokers", len(o.Brokers))
	}
	for i := range o.Brokers {
		if err := o.Brokers[i].check(host); err != nil {
			return nil, fmt.Errorf("its broker %d: %w", i+1, err)
		}
	}
	for _, list := range [][]ban.Topic{o.Accept, o.Publish} {
		if len(list) > maxTopics {
			return nil, fmt.Errorf("it names %d topics", len(list))
		}
		for _, t := range list {
			if _, err := ban.ParseTopic(string(t)); err != nil {
				return nil, err
			}
		}
	}
	return card, nil
}

func (b *Broker) check(host string) error {
	if len(b.Others) > maxBrokers {
		return errors.New("too many addresses")
	}
	for _, p := range append([]*string{&b.URL}, pointers(b.Others)...) {
		u, err := url.Parse(*p)
		switch {
		case len(*p) > maxURL, !wire.PlainText(*p), err != nil:
			return errors.New("an address that is none")
		case !slices.Contains([]string{"tcp", "ssl", "ws", "wss"}, u.Scheme), u.User != nil:
			return fmt.Errorf("%q is no address that another machine reaches", *p)
		}
		if u.Hostname() != "" {
			continue
		}
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%q has no port", *p)
		}
		u.Host = net.JoinHostPort(host, u.Port())
		*p = u.String()
	}
	if len(b.ServerName) > maxURL || !wire.PlainText(b.ServerName) || len(b.CA) > maxCA || len(b.Fingerprint) > 128 || !wire.PlainText(b.Fingerprint) {
		return errors.New("a text is too long or not plain")
	}
	if b.CA == "" {
		return nil
	}
	for rest := []byte(b.CA); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return errors.New("something else than certificates among those who sign its own")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func pointers(list []string) (out []*string) {
	for i := range list {
		out = append(out, &list[i])
	}
	return out
}
