package notify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/mqttguard"
)

// broker publishes messages to a topic of an MQTT broker, at QoS 1 and not
// retained. It connects for each: messages are few.
type broker struct {
	entry  *Entry
	secret string
	tls    *tls.Config
	within time.Duration // for an attempt with all its steps
}

// maxPacket is the longest packet that the broker may send, in bytes: nothing is
// subscribed to.
const maxPacket = 4096

func (b *broker) send(ctx context.Context, m Message) (string, error) {
	payload, err := json.Marshal(newDocument(m, b.entry))
	if err != nil {
		return "", fmt.Errorf("encoding the message: %w", err)
	}
	u, err := url.Parse(b.entry.URL)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, b.within)
	defer cancel()
	o := mqtt.NewClientOptions().AddBroker(u.String()).SetClientID("banmesh-" + newID()[:15]).SetUsername(b.entry.User).SetPassword(b.secret)
	o.SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false)
	o.SetConnectTimeout(b.within / 2).SetWriteTimeout(b.within / 2)
	o.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return b.dial(ctx, u) })
	c := mqtt.NewClient(o)
	defer c.Disconnect(250)
	if err := wait(ctx, c.Connect()); err != nil {
		return "", fmt.Errorf("connecting to %s: %s", u.Host, hide(err.Error(), b.secret))
	}
	if err := wait(ctx, c.Publish(b.entry.To[0], 1, false, payload)); err != nil {
		return "", fmt.Errorf("publishing to %s: %s", u.Host, hide(err.Error(), b.secret))
	}
	return u.Host + " acknowledged it", nil
}

func (b *broker) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"tcp": "1883", "ssl": "8883"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	var d net.Dialer
	var c net.Conn
	var err error
	if u.Scheme == "ssl" {
		c, err = (&tls.Dialer{NetDialer: &d, Config: b.tls}).DialContext(ctx, "tcp", address)
	} else {
		c, err = d.DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return nil, err
	}
	return mqttguard.New(c, maxPacket), nil
}

// wait waits for a token.
func wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		return errors.New("no answer in time")
	}
}
