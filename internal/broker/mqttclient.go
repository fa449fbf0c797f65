package broker

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

// An Endpoint is a broker to connect to.
type Endpoint struct {
	URL      string // tcp://host:port, ssl://host:port or unix:///path
	TLS      *tls.Config
	ClientID string
	User     string
	Password string
}

// A link is the sidecar's end of an MQTT connection. Writes and reads may be
// in different goroutines.
type link struct {
	nc net.Conn
	r  *bufio.Reader
}

// linkTime bounds each step of connecting, and each write.
const linkTime = 20 * time.Second

// linkKeepalive is the keepalive of a link; pings are sent twice as often.
const linkKeepalive = 60 * time.Second

// linkPacket is the largest packet that a link reads: a broker that announces
// more is lying or not ours.
const linkPacket = 256 << 10

// parse gives what to dial.
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

func connectLink(ctx context.Context, e Endpoint) (l *link, err error) {
	network, address, encrypted, err := e.parse()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, linkTime)
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
	l = &link{nc, bufio.NewReaderSize(nc, 16<<10)}
	defer func() {
		if err != nil {
			_ = nc.Close()
		}
	}()
	_ = nc.SetDeadline(time.Now().Add(linkTime))
	if _, err := nc.Write(connectBytes(e)); err != nil {
		return nil, err
	}
	first, body, err := l.read()
	switch {
	case err != nil:
		return nil, err
	case first != frame.Connack<<4 || len(body) != 2:
		return nil, errors.New("it does not answer like an MQTT broker")
	case body[1] != frame.Accepted:
		return nil, fmt.Errorf("it refuses us with CONNACK code %d", body[1])
	}
	return l, nc.SetDeadline(time.Time{})
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(append(b, byte(len(s)>>8), byte(len(s))), s...)
}

func appendPacket(b []byte, first byte, body []byte) []byte {
	return append(binary.AppendUvarint(append(b, first), uint64(len(body))), body...)
}

func connectBytes(e Endpoint) []byte {
	flags := frame.FlagClean
	if e.User != "" {
		flags |= 0xc0 // user name and password
	}
	seconds := uint16(linkKeepalive / time.Second)
	body := append(appendText(nil, "MQTT"), frame.Level311, flags, byte(seconds>>8), byte(seconds))
	body = appendText(body, e.ClientID)
	if e.User != "" {
		body = appendText(appendText(body, e.User), e.Password)
	}
	return appendPacket(nil, frame.Connect<<4, body)
}

func (l *link) write(b []byte) error {
	_ = l.nc.SetWriteDeadline(time.Now().Add(linkTime))
	_, err := l.nc.Write(b)
	return err
}

func (l *link) subscribe(filter string) error {
	return l.write(appendPacket(nil, frame.Subscribe<<4|2, append(appendText([]byte{0, 1}, filter), 1)))
}

// read reads one packet, and waits for it no longer than the keepalive.
func (l *link) read() (first byte, body []byte, err error) {
	_ = l.nc.SetReadDeadline(time.Now().Add(linkKeepalive + linkKeepalive/2))
	if first, err = l.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(l.r)
	if err != nil {
		return 0, nil, err
	}
	if n > linkPacket {
		return 0, nil, fmt.Errorf("%w: %d bytes", frame.ErrTooLarge, n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(l.r, body)
	return first, body, err
}

// keepAlive pings until ctx ends, which closes the connection.
func (l *link) keepAlive(ctx context.Context) {
	t := time.NewTicker(linkKeepalive / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = l.nc.Close()
			return
		case <-t.C:
			if l.write([]byte{frame.Pingreq << 4, 0}) != nil {
				_ = l.nc.Close()
			}
		}
	}
}
