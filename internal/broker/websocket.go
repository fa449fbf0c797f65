package broker

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

var errText = errors.New("MQTT travels in binary WebSocket messages")

// serveWeb serves MQTT over WebSocket (MQTT 3.1.1, section 6) on every path.
func (l *listener) serveWeb() {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: l.b.limits.ConnectTime,
		ReadBufferSize:   readSmall, WriteBufferSize: readSmall,
		Subprotocols: []string{"mqtt"},
		// The broker knows no cookies, so another site's page can do no more
		// than any other client.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	server := &http.Server{
		ReadHeaderTimeout: l.b.limits.ConnectTime,
		IdleTimeout:       l.b.limits.ConnectTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // it says addresses
		TLSConfig:         l.tls,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !slices.Contains(websocket.Subprotocols(r), "mqtt") {
				http.Error(w, "this is an MQTT broker: use the WebSocket subprotocol mqtt", http.StatusBadRequest)
				return
			}
			ws, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return // Upgrade has answered
			}
			ws.SetReadLimit(int64(l.b.limits.MaxPacket))
			l.b.work.Add(1)
			defer l.b.work.Done()
			l.b.serveConn(&webConn{Conn: ws.NetConn(), ws: ws})
		}),
	}
	server.SetKeepAlivesEnabled(false) // one request, one answer, or MQTT
	l.mu.Lock()
	select {
	case <-l.closed:
		l.mu.Unlock()
		return
	default:
	}
	l.web = server
	l.mu.Unlock()
	if l.kind == SecureWS {
		_ = server.Serve(tls.NewListener(l, l.tls))
	} else {
		_ = server.Serve(l)
	}
}

// A webConn is a WebSocket connection as a stream of MQTT's bytes.
type webConn struct {
	net.Conn
	ws *websocket.Conn
	r  io.Reader // of the message at hand
}

// NetConn gives the connection below.
func (w *webConn) NetConn() net.Conn { return w.Conn }

func (w *webConn) Read(p []byte) (int, error) {
	for {
		if w.r == nil {
			kind, r, err := w.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errText
			}
			w.r = r
		}
		n, err := w.r.Read(p)
		if err != nil {
			w.r = nil
			if !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (w *webConn) Write(p []byte) (int, error) {
	if err := w.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *webConn) SetReadDeadline(t time.Time) error  { return w.ws.SetReadDeadline(t) }
func (w *webConn) SetWriteDeadline(t time.Time) error { return w.ws.SetWriteDeadline(t) }

func (w *webConn) SetDeadline(t time.Time) error {
	return errors.Join(w.ws.SetReadDeadline(t), w.ws.SetWriteDeadline(t))
}

func (w *webConn) ConnectionState() tls.ConnectionState {
	if t, ok := w.Conn.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}
