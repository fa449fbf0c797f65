package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall/desired"
)

// sockets closes local TCP sockets of banned addresses (sock_diag(7)). The
// packets of such an address are dropped already; closing frees at
// once the resources that the service holds for it, instead of when its timeouts run out.
type sockets struct {
	conn *socket
	due  bool      // there are bans whose sockets were not looked for
	rest time.Time // not before: looking may take a twentieth of the time
	off  bool      // the kernel cannot
}

const (
	destroySockets = 21 // SOCK_DESTROY (linux/sock_diag.h)
	// openStates are TCP's states but LISTEN, TIME_WAIT and CLOSE.
	openStates = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_RECV | 1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 |
		1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING | 1<<unix.BPF_TCP_NEW_SYN_RECV
	socketID   = 48 // struct inet_diag_sockid: ports, addresses, interface, cookie
	restFactor = 20
)

// cut closes the sockets of banned addresses, now or, when that was done a
// moment ago, at a later call.
func (n *Firewall) cut() error {
	s := &n.sockets
	if !s.due || s.off || n.config.KeepSockets || n.now().Before(s.rest) {
		return nil
	}
	began := time.Now()
	closed, err := n.closeBanned()
	s.rest = n.now().Add(restFactor * time.Since(began))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT) && closed == 0 && s.conn == nil:
		s.off = true
		n.log.Info("sockets of banned addresses stay open until they time out", "reason", "the kernel lacks SOCK_DESTROY")
		return nil
	case err != nil:
		return n.explain("closing sockets", err)
	}
	s.due = false
	if closed > 0 {
		n.log.Info("sockets of banned addresses closed", "sockets", closed)
	}
	return nil
}

func (n *Firewall) closeBanned() (closed int, err error) {
	s := &n.sockets
	if s.conn == nil {
		if s.conn, err = openSocket(unix.NETLINK_SOCK_DIAG); err != nil {
			return 0, err
		}
	}
	defer func() {
		if errors.Is(err, errLost) {
			_ = s.conn.close()
			s.conn = nil
		}
	}()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var banned [][socketID]byte
		w := writer{seq: &s.conn.seq}
		seq := diagRequest(&w, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, [socketID]byte{})
		err := s.conn.query(w.b, seq, func(m message) error {
			if id, remote, port, ok := readSocket(m.body); ok && n.blocks(remote, port) {
				banned = append(banned, id)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errInterrupted) {
			return closed, err
		}
		for _, id := range banned {
			w.b = w.b[:0]
			seq := diagRequest(&w, destroySockets, unix.NLM_F_ACK, family, id)
			err := s.conn.query(w.b, seq, func(message) error { return nil })
			switch {
			case err == nil:
				closed++
			case !errors.Is(err, unix.ENOENT): // it closed by itself meanwhile
				return closed, err
			}
		}
	}
	return closed, nil
}

// diagRequest writes a struct inet_diag_req_v2 about TCP.
func diagRequest(w *writer, kind, flags uint16, family byte, id [socketID]byte) (seq uint32) {
	seq = w.message(kind, flags)
	w.b = append(w.b, family, unix.IPPROTO_TCP, 0, 0)
	w.b = binary.NativeEndian.AppendUint32(w.b, openStates)
	w.b = append(w.b, id[:]...)
	w.end()
	return seq
}

// readSocket reads a struct inet_diag_msg: the socket's name, the peer and the
// local port.
func readSocket(b []byte) (id [socketID]byte, remote netip.Addr, port uint16, ok bool) {
	if len(b) < 4+socketID {
		return id, remote, 0, false
	}
	copy(id[:], b[4:])
	switch b[0] {
	case unix.AF_INET:
		remote = netip.AddrFrom4([4]byte(id[20:24]))
	case unix.AF_INET6:
		remote = netip.AddrFrom16([16]byte(id[20:36])).Unmap()
	default:
		return id, remote, 0, false
	}
	return id, remote, binary.BigEndian.Uint16(id[:2]), true
}

// blocks says whether packets of a peer to a local TCP port are dropped.
func (n *Firewall) blocks(peer netip.Addr, port uint16) bool {
	if peer.IsLoopback() || slices.ContainsFunc(n.config.Never, func(p netip.Prefix) bool { return p.Contains(peer) }) {
		return false
	}
	now := desired.SecondOf(n.clock.at)
	for _, v := range n.state.Covering(peer, n.wide[family(peer)].held) {
		if v.Class == 0 || v.Until <= now {
			continue
		}
		for _, s := range n.config.Scopes {
			if _, in := slices.BinarySearch(n.state.Classes[v.Class].Topics, s.Topic); in && !s.Observe && s.Meets("tcp", port) {
				return true
			}
		}
	}
	return false
}
