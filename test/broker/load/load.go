// Package load is a load generator for MQTT brokers: signed publications in,
// deliveries counted and timed. It handles packets itself, so that it costs the
// machine little beside the broker under test.
package load

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/wire"
)

// Network is the network of the load.
const Network = "bench"

// Filter matches every publication of the load.
const Filter = wire.Prefix + Network + "/operators/+/topics/+"

// A Conn is a client's connection after its CONNACK.
type Conn = mqttclient.Conn

// Dial connects a client with a clean session and without a login.
func Dial(address, id string, keepalive uint16) (*Conn, error) {
	return dial(address, id, "", "", keepalive)
}

// DialAt is Dial for a URL; over TLS it takes any certificate.
func DialAt(url, id string, keepalive uint16) (*Conn, error) {
	return mqttclient.Dial(context.Background(), mqttclient.Endpoint{
		URL: url, ClientID: id, Keepalive: time.Duration(keepalive) * time.Second, TLS: &tls.Config{InsecureSkipVerify: true},
	})
}

// filtersAtOnce is how many filters go into one SUBSCRIBE.
const filtersAtOnce = 50

// SubscribeAll subscribes to filters, some at a time, and wants each granted.
func SubscribeAll(c *Conn, filters []string, qos byte) error {
	for some := range slices.Chunk(filters, filtersAtOnce) {
		body := []byte{0, 1}
		for _, f := range some {
			body = append(binary.BigEndian.AppendUint16(body, uint16(len(f))), f...)
			body = append(body, qos)
		}
		packet := binary.AppendUvarint([]byte{frame.Subscribe<<4 | 2}, uint64(len(body)))
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(append(packet, body...)); err != nil {
			return err
		}
		for {
			first, answer, err := c.ReadPacket()
			if err != nil {
				return err
			}
			if first>>4 != frame.Suback {
				continue
			}
			if at := slices.Index(answer[2:], 0x80); at >= 0 {
				return fmt.Errorf("the filter %s was refused", some[at])
			}
			break
		}
	}
	return c.SetDeadline(time.Time{})
}

// DialUser connects a client that has an account.
func DialUser(address, id, user, password string, keepalive uint16) (*Conn, error) {
	return dial(address, id, user, password, keepalive)
}

// DialKey connects as a node of the author's operator, by proof of its key.
func (a *Author) DialKey(address string) (*Conn, error) {
	node := ed25519.NewKeyFromSeed(a.root.Seed()[:ed25519.SeedSize])
	operator := ban.OperatorOf(a.root.Public().(ed25519.PublicKey))
	id := ban.NodeOf(node.Public().(ed25519.PublicKey))
	return dial(address, id.String(), operator.String(), wire.LoginPassword(node, operator, "127.0.0.1", time.Now().Add(10*time.Minute)), 60)
}

func dial(address, id, user, password string, keepalive uint16) (*Conn, error) {
	return mqttclient.Dial(context.Background(), mqttclient.Endpoint{
		URL: "tcp://" + address, ClientID: id, User: user, Password: password, Keepalive: time.Duration(keepalive) * time.Second,
	})
}

// An Author signs publications of a wanted size.
type Author struct {
	root   ed25519.PrivateKey
	topic  string
	serial uint64
}

// NewAuthor gives an author whose key follows from n.
func NewAuthor(n int) *Author {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, uint64(n)+1)
	root := ed25519.NewKeyFromSeed(seed)
	name := wire.Name{
		Network: Network, Kind: wire.KindDefinition, Topic: "load",
		Operator: ban.OperatorOf(root.Public().(ed25519.PublicKey)),
	}
	return &Author{root: root, topic: name.String(), serial: uint64(time.Now().UnixNano())}
}

// mark begins the time in a payload.
const mark = "t="

// Next gives the next publication, with its time in it.
func (a *Author) Next(size int, now time.Time) (topic string, payload []byte, err error) {
	a.serial++
	text := mark + fmt.Sprintf("%019d", now.UnixNano())
	const overhead = 64 + 4 + 2 + 6 + 5 + 16 + 32 + 8 + 8 + 4 + 4 // of signature and header
	text += strings.Repeat(" ", max(0, size-overhead-len(text)))
	payload, err = wire.SignDefinition(a.root, Network, "load", a.serial, now, text)
	return a.topic, payload, err
}

// NextTrust gives a publication that [Filter] does not match: a trust list.
func (a *Author) NextTrust(now time.Time) (topic string, payload []byte, err error) {
	a.serial++
	name := wire.Name{Network: Network, Kind: wire.KindTrust, Operator: ban.OperatorOf(a.root.Public().(ed25519.PublicKey))}
	payload, err = wire.SignTrust(a.root, Network, a.serial, now, wire.Trust{})
	return name.String(), payload, err
}

// Sent reads the time in a payload.
func Sent(payload []byte) (time.Time, bool) {
	for i := max(0, len(payload)-400); i+len(mark)+19 <= len(payload); i++ {
		if payload[i] == 't' && payload[i+1] == '=' {
			if ns, err := strconv.ParseInt(string(payload[i+2:i+2+19]), 10, 64); err == nil && ns > 0 {
				return time.Unix(0, ns), true
			}
		}
	}
	return time.Time{}, false
}
