package federation

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"time"

	"banmesh/internal/mqttguard"
	"banmesh/internal/wire"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// maxFrame is the longest MQTT packet that a broker may send us: a payload,
// a topic and the packet's own fields.
const maxFrame = wire.MaxPayload + 1024

// dial opens a guarded connection to a broker's URL.
func dial(u *url.URL, t *tls.Config, timeout time.Duration) (*mqttguard.Conn, error) {
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
	return mqttguard.New(c, maxFrame), nil
}

func hostPort(u *url.URL, port string) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), port)
}
