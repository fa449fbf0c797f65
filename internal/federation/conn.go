package federation

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"banmesh/internal/wire"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// maxFrame is the longest MQTT packet that a broker may send us: a payload,
// a topic and the packet's own fields. The client library would allocate
// whatever length the broker announces.
const maxFrame = wire.MaxPayload + 1024

// errFrame says that a broker announced a packet that is too long.
var errFrame = errors.New("the broker announced a packet that is too long")

// dial opens a connection to a broker's URL and bounds its packets.
func dial(u *url.URL, t *tls.Config, timeout time.Duration) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	var c net.Conn
	var err error
	switch u.Scheme {
	case "tcp", "mqtt":
		c, err = d.Dial("tcp", hostPort(u, "1883"))
	case "ssl", "tls", "mqtts":
		c, err = tls.DialWithDialer(d, "tcp", hostPort(u, "8883"), t)
	case "unix":
		c, err = d.Dial("unix", u.Path)
	case "ws", "wss":
		w := *u
		w.User = nil
		if u.Scheme == "ws" {
			t = nil
		}
		c, err = mqtt.NewWebsocket(w.String(), t, timeout, nil, &mqtt.WebsocketOptions{ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10})
	default:
		err = fmt.Errorf("unknown scheme %q", u.Scheme)
	}
	if err != nil {
		return nil, err
	}
	return &framed{Conn: c}, nil
}

func hostPort(u *url.URL, port string) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// framed is a connection that reads as long as the broker's packets are short
// enough. It follows the fixed headers of MQTT 3.1.1 (section 2.2).
type framed struct {
	net.Conn
	left   int // bytes until the next fixed header
	length int // remaining length as far as it was read
	shift  int // -1: the next byte is a packet type
	inside bool
	err    error
}

func (f *framed) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.Conn.Read(p)
	for b := p[:n]; len(b) > 0; {
		if f.left > 0 {
			skip := min(f.left, len(b))
			f.left -= skip
			b = b[skip:]
			continue
		}
		c := b[0]
		b = b[1:]
		if !f.inside { // the packet's type
			f.inside, f.length, f.shift = true, 0, 0
			continue
		}
		f.length |= int(c&0x7f) << f.shift
		f.shift += 7
		if c&0x80 != 0 && f.shift < 28 {
			continue
		}
		if c&0x80 != 0 || f.length > maxFrame {
			f.err = errFrame
			_ = f.Conn.Close()
			return 0, f.err
		}
		f.inside, f.left = false, f.length
	}
	return n, err
}
