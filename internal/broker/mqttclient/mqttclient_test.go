package mqttclient

import (
	"context"
	"errors"
	"net"
	"testing"

	"banmesh/internal/broker/frame"
)

// answering is a server that reads a CONNECT and writes an answer.
func answering(t *testing.T, answer []byte) Endpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_, _ = nc.Read(make([]byte, 1<<10))
		_, _ = nc.Write(answer)
		_ = nc.(*net.TCPConn).CloseWrite()
		_, _ = nc.Read(make([]byte, 1<<10)) // until the client is gone
	}()
	return Endpoint{URL: "tcp://" + l.Addr().String(), ClientID: "test"}
}

func TestOnlyABrokersAnswerConnects(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		ok     bool
	}{
		"accepted":        {[]byte{0x20, 2, 0, 0}, true},
		"refused":         {[]byte{0x20, 2, 0, 5}, false},
		"another packet":  {[]byte{0x30, 2, 0, 0}, false},
		"another service": {[]byte("220 mail\r\n"), false},
		"a short CONNACK": {[]byte{0x20, 1, 0}, false},
	} {
		conn, err := Dial(context.Background(), answering(t, c.answer))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestAnAnnouncedPacketIsBounded(t *testing.T) {
	if _, err := Dial(context.Background(), answering(t, []byte{0x20, 0xff, 0xff, 0xff, 0x7f})); !errors.Is(err, frame.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestAnEndpointIsChecked(t *testing.T) {
	for url, ok := range map[string]bool{
		"tcp://192.0.2.1:1883": true, "ssl://broker.example:8883": true, "unix:///run/broker.sock": true,
		"tcp://192.0.2.1": false, "http://192.0.2.1:80": false, "unix://": false, "": false,
	} {
		if err := (Endpoint{URL: url}).Check(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
