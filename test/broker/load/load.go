// Package load is a load generator for MQTT brokers: signed publications in,
// deliveries counted and timed. It speaks MQTT 3.1.1 itself, so that it costs
// the machine little beside the broker under test.
package load

import (
	"bufio"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/wire"
)

// Network is the network of the load.
const Network = "bench"

// Filter matches every publication of the load.
const Filter = wire.Prefix + Network + "/operators/+/topics/+"

// A Conn is a client's connection after its CONNACK.
type Conn struct {
	net.Conn
	R *bufio.Reader
}

// Dial connects a client with a clean session and without a login.
func Dial(address, id string, keepalive uint16) (*Conn, error) {
	return dial(address, id, "", "", keepalive)
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
	nc, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return nil, err
	}
	body := append([]byte{0, 4}, "MQTT"...)
	flags := frame.FlagClean
	if user != "" {
		flags |= 0xc0
	}
	body = append(body, frame.Level311, flags, byte(keepalive>>8), byte(keepalive))
	texts := []string{id}
	if user != "" {
		texts = append(texts, user, password)
	}
	for _, s := range texts {
		body = append(append(body, byte(len(s)>>8), byte(len(s))), s...)
	}
	c := &Conn{nc, bufio.NewReaderSize(nc, 16<<10)}
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write(append(binary.AppendUvarint([]byte{frame.Connect << 4}, uint64(len(body))), body...)); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	h, body, err := c.Read()
	if err == nil && (h != frame.Connack<<4 || body[1] != 0) {
		err = fmt.Errorf("CONNECT: got %x %x", h, body)
	}
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nc.SetDeadline(time.Time{})
}

// Read reads one packet.
func (c *Conn) Read() (first byte, body []byte, err error) {
	first, err = c.R.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.R)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.R, body)
	return first, body, err
}

// Subscribe subscribes and waits for the answer. What was published before it
// is thrown away.
func (c *Conn) Subscribe(filter string, qos byte) error {
	body := append([]byte{0, 1, byte(len(filter) >> 8), byte(len(filter))}, filter...)
	body = append(body, qos)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(append(binary.AppendUvarint([]byte{frame.Subscribe<<4 | 2}, uint64(len(body))), body...)); err != nil {
		return err
	}
	first, answer, err := c.Read()
	for err == nil && first>>4 == frame.Publish {
		first, answer, err = c.Read()
	}
	if err != nil {
		return err
	}
	if first != frame.Suback<<4 || answer[2] > 2 {
		return fmt.Errorf("SUBSCRIBE %s: got %x %x", filter, first, answer)
	}
	return c.SetDeadline(time.Time{})
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
