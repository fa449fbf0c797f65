// Package mqttclient is a small client of MQTT 3.1.1 for programs that handle
// packets themselves: the admission gateway, which forwards them, and the load
// generators, which count them. It connects once and keeps no state; agents use
// a full client.
package mqttclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"banmesh/internal/broker/frame"
)

// An Endpoint is a broker to connect to, and as whom.
type Endpoint struct {
	URL      string // tcp://host:port, ssl://host:port or unix:///path
	TLS      *tls.Config
	ClientID string
	User     string
	Password string
	// Keepalive is rounded to seconds; 0 takes a minute.
	Keepalive time.Duration
	// Keep has the broker keep the session of ClientID, and the messages for it, while
	// it is not connected.
	Keep bool
}

// stepTime bounds each step of connecting, and each write of Send.
const stepTime = 20 * time.Second

// maxPacket is the largest packet that is read, in bytes: a broker that
// announces more is lying or not ours.
const maxPacket = 256 << 10

// Check says whether the endpoint can be dialled.
func (e Endpoint) Check() error {
	_, _, _, err := e.parse()
	return err
}

// parse gives the network and address to dial, and whether with TLS.
func (e Endpoint) parse() (network, address string, encrypted bool, err error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return "", "", false, err
	}
	switch u.Scheme {
	case "tcp", "mqtt":
		network, address = "tcp", u.Host
	case "ssl", "tls", "mqtts":
		network, address, encrypted = "tcp", u.Host, true
	case "unix":
		if network, address = "unix", u.Opaque+u.Host+u.Path; address == "" {
			err = fmt.Errorf("%s: no path", e.URL)
		}
	default:
		err = fmt.Errorf("%s: the scheme is none of tcp, ssl and unix", e.URL)
	}
	if network == "tcp" {
		_, _, err = net.SplitHostPort(address)
	}
	return network, address, encrypted, err
}

func (e Endpoint) keepalive() time.Duration {
	if e.Keepalive <= 0 {
		return time.Minute
	}
	return e.Keepalive
}

// A Conn is a connection after its CONNACK. One goroutine may read while
// others write.
type Conn struct {
	net.Conn
	R         *bufio.Reader // of the bytes that were not read as packets yet
	Resumed   bool          // the broker had kept the session
	keepalive time.Duration
}

// Dial connects, with a clean session unless the endpoint keeps it.
func Dial(ctx context.Context, e Endpoint) (c *Conn, err error) {
	network, address, encrypted, err := e.parse()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	var d net.Dialer
	var nc net.Conn
	if encrypted {
		config := e.TLS
		if config == nil {
			config = &tls.Config{}
		}
		nc, err = (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, network, address)
	} else {
		nc, err = d.DialContext(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	c = &Conn{Conn: nc, R: bufio.NewReaderSize(nc, 16<<10), keepalive: e.keepalive()}
	if err := c.connect(e); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return c, nil
}

func (c *Conn) connect(e Endpoint) error {
	_ = c.SetDeadline(time.Now().Add(stepTime))
	if _, err := c.Write(connectBytes(e)); err != nil {
		return err
	}
	first, body, err := c.ReadPacket()
	switch {
	case err != nil:
		return err
	case first != frame.Connack<<4 || len(body) != 2:
		return errors.New("it does not answer like an MQTT broker")
	case body[1] != frame.Accepted:
		return fmt.Errorf("it refuses us with CONNACK code %d", body[1])
	}
	c.Resumed = body[0]&1 != 0
	return c.SetDeadline(time.Time{})
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(append(b, byte(len(s)>>8), byte(len(s))), s...)
}

func appendPacket(b []byte, first byte, body []byte) []byte {
	return append(binary.AppendUvarint(append(b, first), uint64(len(body))), body...)
}

func connectBytes(e Endpoint) []byte {
	var flags byte
	if !e.Keep {
		flags = frame.FlagClean
	}
	if e.User != "" {
		flags |= 0xc0 // user name and password
	}
	seconds := uint16(e.keepalive() / time.Second)
	body := append(appendText(nil, "MQTT"), frame.Level311, flags, byte(seconds>>8), byte(seconds))
	body = appendText(body, e.ClientID)
	if e.User != "" {
		body = appendText(appendText(body, e.User), e.Password)
	}
	return appendPacket(nil, frame.Connect<<4, body)
}

// Send writes whole packets, for no longer than a step may take.
func (c *Conn) Send(b []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(stepTime))
	_, err := c.Write(b)
	return err
}

// Request sends a SUBSCRIBE with the identifier 1, whose answer [Conn.ReadPacket] gives.
func (c *Conn) Request(filter string, qos byte) error {
	return c.Send(appendPacket(nil, frame.Subscribe<<4|2, append(appendText([]byte{0, 1}, filter), qos)))
}

// Subscribe subscribes and waits for the answer. It drops publications that
// overtake it.
func (c *Conn) Subscribe(filter string, qos byte) error {
	_ = c.SetReadDeadline(time.Now().Add(3 * stepTime))
	if err := c.Request(filter, qos); err != nil {
		return err
	}
	first, answer, err := c.ReadPacket()
	for err == nil && first>>4 == frame.Publish {
		first, answer, err = c.ReadPacket()
	}
	switch {
	case err != nil:
		return err
	case first != frame.Suback<<4 || len(answer) != 3 || answer[2] > 2:
		return fmt.Errorf("SUBSCRIBE %s: got %x %x", filter, first, answer)
	}
	return c.SetDeadline(time.Time{})
}

// ReadPacket reads one packet: its first byte, and the bytes after its length.
func (c *Conn) ReadPacket() (first byte, body []byte, err error) {
	if first, err = c.R.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.R)
	if err != nil {
		return 0, nil, err
	}
	if n > maxPacket {
		return 0, nil, fmt.Errorf("%w: %d bytes", frame.ErrTooLarge, n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.R, body)
	return first, body, err
}

// Await reads one packet and waits for it no longer than one and a half
// keepalives: with [Conn.KeepAlive] running, a broker that lives answers pings.
func (c *Conn) Await() (first byte, body []byte, err error) {
	_ = c.SetReadDeadline(time.Now().Add(c.keepalive + c.keepalive/2))
	return c.ReadPacket()
}

// KeepAlive pings until ctx ends, which closes the connection.
func (c *Conn) KeepAlive(ctx context.Context) {
	t := time.NewTicker(c.keepalive / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = c.Close()
			return
		case <-t.C:
			if c.Send([]byte{frame.Pingreq << 4, 0}) != nil {
				_ = c.Close()
			}
		}
	}
}
