package client

import (
	"net"
	"net/netip"
	"sync"
)

// Listener refuses banned addresses before a byte is read or written: Accept
// closes their connections at once and goes on. Connections whose address is
// banned later are closed within moments of the ban, also those in the middle of
// HTTP/2. Connections without an IP address, of a unix socket, pass.
func (c *Client) Listener(l net.Listener) net.Listener {
	g := &listener{Listener: l, c: c, open: map[netip.Addr]map[net.Conn]bool{}}
	g.stop = c.watch(g.sweep)
	return g
}

type listener struct {
	net.Listener
	c    *Client
	stop func()

	mu   sync.Mutex
	done bool // closed
	open map[netip.Addr]map[net.Conn]bool
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, ok := addrOf(conn.RemoteAddr())
		if !ok {
			return conn, nil
		}
		a = a.Unmap()
		l.add(a, conn)
		// Looked at once it is in the list, so that no ban comes between.
		if !l.c.Banned(a) {
			return l.wrap(a, conn), nil
		}
		l.remove(a, conn)
		reset(conn)
	}
}

// Close ends the listener; connections that it accepted stay guarded.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done = true; len(l.open) == 0 {
		l.stop()
	}
	return err
}

// sweep closes the connections of addresses that are banned by now.
func (l *listener) sweep() {
	var banned []net.Conn
	l.mu.Lock()
	for a, conns := range l.open {
		if !l.c.Banned(a) {
			continue
		}
		for conn := range conns {
			banned = append(banned, conn)
		}
	}
	l.mu.Unlock()
	for _, conn := range banned {
		reset(conn)
	}
}

func (l *listener) add(a netip.Addr, conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a] == nil {
		l.open[a] = map[net.Conn]bool{}
	}
	l.open[a][conn] = true
}

func (l *listener) remove(a netip.Addr, conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open[a], conn)
	if len(l.open[a]) == 0 {
		delete(l.open, a)
	}
	if l.done && len(l.open) == 0 {
		l.stop()
	}
}

// wrap gives a connection that leaves the list when it is closed; one of TCP
// keeps all that a [net.TCPConn] can do.
func (l *listener) wrap(a netip.Addr, conn net.Conn) net.Conn {
	if t, ok := conn.(*net.TCPConn); ok {
		return &guardedTCP{t, func() { l.remove(a, conn) }}
	}
	return &guarded{conn, func() { l.remove(a, conn) }}
}

type guardedTCP struct {
	*net.TCPConn
	closed func()
}

func (g *guardedTCP) Close() error {
	g.closed()
	return g.TCPConn.Close()
}

type guarded struct {
	net.Conn
	closed func()
}

func (g *guarded) Close() error {
	g.closed()
	return g.Conn.Close()
}

// reset ends a connection at once.
func reset(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		// A reset leaves no connection behind that waits for its end.
		_ = t.SetLinger(0)
	}
	conn.Close()
}
