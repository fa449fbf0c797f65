package gate

import (
	"errors"
	"fmt"
	"net"
	"os"
)

const (
	// SocketName is the FileDescriptorName of the socket unit.
	SocketName = "gate"
	// callName is the name under which calls are kept, see [Service.Keep].
	callName = "call"
	// DefaultAddress is the gate's: loopback only, beside go-livepeer's own
	// command-line port 7935.
	DefaultAddress = "127.0.0.1:7936"
)

// A Socket is the place at which the orchestrator asks.
type Socket struct {
	Listener *net.TCPListener
	// Inherited says that systemd holds the socket: calls that come while the
	// gate is replaced wait in the kernel instead of being refused.
	Inherited bool
	// Calls were accepted by a process before, and not answered.
	Calls []*net.TCPConn
}

// Listen gives the gate's socket among the files that systemd handed over
// (activation.Files of go-systemd, asked once in a process), or else opens
// address itself. An address that is not loopback is refused. Of files it closes
// the gate's.
func Listen(address string, files []*os.File) (s Socket, err error) {
	for _, f := range files {
		switch f.Name() {
		case SocketName:
			l, err := net.FileListener(f)
			f.Close() // the listener has a copy
			if err != nil {
				return s, fmt.Errorf("taking over the gate's socket: %w", err)
			}
			tcp, ok := l.(*net.TCPListener)
			if !ok || !isLoopback(l.Addr()) {
				l.Close()
				return s, fmt.Errorf("the gate's socket listens on %s: %w", l.Addr(), errLoopback)
			}
			s.Listener, s.Inherited = tcp, true
		case callName:
			c, err := net.FileConn(f)
			f.Close()
			if tcp, ok := c.(*net.TCPConn); ok && err == nil {
				s.Calls = append(s.Calls, tcp)
			}
		}
	}
	if s.Listener != nil {
		return s, nil
	}
	tcp, err := LoopbackAddress(address)
	if err != nil {
		return s, fmt.Errorf("the gate's address %s: %w", address, err)
	}
	if s.Listener, err = net.ListenTCP("tcp", tcp); err != nil {
		return s, fmt.Errorf("listening for the orchestrator: %w", err)
	}
	return s, nil
}

// LoopbackAddress reads an address on which a gate may listen.
func LoopbackAddress(address string) (*net.TCPAddr, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !isLoopback(tcp) {
		return nil, errLoopback
	}
	return tcp, nil
}

var errLoopback = errors.New("not a loopback address, and the webhook is for the orchestrator on this machine")

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// URL gives the value of the orchestrator's -authWebhookUrl.
func URL(address, path string) string { return "http://" + address + "/" + path }
