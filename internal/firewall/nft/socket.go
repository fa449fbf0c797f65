package nft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a netlink socket of one protocol. google/nftables's own connection
// is not used: it waits with select(2), which panics in a process whose
// descriptors pass 1,024, and it asks for no acknowledgement, so a lost error
// would look like success. Its expressions are used (layout.go).
//
// The kernel handles a request within sendto, so replies are there when it
// returns and no deadline is needed beyond the one against a kernel bug.
type socket struct {
	fd   int
	port uint32 // the kernel's name for this socket
	seq  uint32
	in   []byte
	send int // bytes that the send buffer holds
}

const (
	// receiveBuffer holds the acknowledgements of a transaction and any dump
	// datagram; the kernel sends dumps in pieces of at most 32 KiB.
	receiveBuffer = 4 << 20
	// receiveTimeout is only met when the kernel does not answer at all.
	receiveTimeout = 30
	// datagram is the largest piece of an answer.
	datagram = 64 << 10
)

// errLost says that the kernel may have answered, but not so that we know: the
// state after the request is unknown and the socket must be replaced.
var errLost = errors.New("the kernel's answer was lost")

func openSocket(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	s := &socket{fd: fd, in: make([]byte, datagram)}
	if err := s.prepare(); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) prepare() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("binding a netlink socket: %w", err)
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return fmt.Errorf("naming a netlink socket: %w", err)
	}
	if nl, ok := name.(*unix.SockaddrNetlink); ok {
		s.port = nl.Pid
	}
	// Without CAP_NET_ADMIN the forced size is refused and the plain one, capped
	// by the system, is enough for queries.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if s.send, err = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
		return fmt.Errorf("reading a netlink socket's buffer size: %w", err)
	}
	// An error need not repeat the request, and may carry the kernel's words.
	// Both are refinements that old kernels lack.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: receiveTimeout})
}

func (s *socket) close() error { return unix.Close(s.fd) }

// write sends b as one datagram.
func (s *socket) write(b []byte) error {
	if need := 2*len(b) + 4096; need > s.send {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, need) == nil {
			s.send = 2 * need
		}
	}
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// read gives the next datagram, valid until the next read. flags are recv's.
func (s *socket) read(flags int) ([]byte, error) {
	for {
		n, err := recv(s.fd, s.in, flags|unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			return nil, errLost
		case err != nil:
			return nil, err
		case n > len(s.in):
			return nil, fmt.Errorf("a netlink answer of %d bytes: %w", n, errLost)
		}
		return s.in[:n], nil
	}
}

// recv is recvfrom without the address, which would cost an allocation a call.
func recv(fd int, b []byte, flags int) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// drain throws away all that is left to read.
func (s *socket) drain() {
	for {
		if _, err := s.read(unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// A kernelError is an error of the kernel about one message.
type kernelError struct {
	errno syscall.Errno
	seq   uint32
	text  string // the kernel's words, if it had any
}

func (e *kernelError) Error() string {
	if e.text != "" {
		return e.errno.Error() + " (" + e.text + ")"
	}
	return e.errno.Error()
}

func (e *kernelError) Unwrap() error { return e.errno }

// commit sends a batch whose last inner message, lastSeq, asks for an
// acknowledgement, and reads until that acknowledgement. The first error of any
// message is the batch's error: the kernel has then undone all of it.
func (s *socket) commit(batch []byte, lastSeq uint32) error {
	if err := s.write(batch); err != nil {
		return err
	}
	var first error
	for acknowledged := false; !acknowledged; {
		b, err := s.read(unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return err
		}
		for m, rest, ok := nextMessage(b); ok; m, rest, ok = nextMessage(rest) {
			if m.kind != unix.NLMSG_ERROR {
				continue
			}
			err := m.asError()
			if err == nil {
				acknowledged = acknowledged || m.seq == lastSeq
			} else if first == nil {
				first = err
			}
		}
		if acknowledged && first == nil {
			return nil
		}
	}
	s.drain()
	if first == nil {
		return errLost
	}
	return first
}

// query sends one message and calls each for every message of the answer,
// which is a dump when the message asks for one.
func (s *socket) query(request []byte, seq uint32, each func(message) error) error {
	dump := binary.NativeEndian.Uint16(request[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if err := s.write(request); err != nil {
		return err
	}
	return s.answer(seq, dump, each)
}

// answer reads the answer to a request. A dump is read to its end whatever is wrong with
// it, as the kernel only continues it as it is read, and not beyond: the message that ends
// it may be the one that says that the rules changed meanwhile, and nothing follows.
func (s *socket) answer(seq uint32, dump bool, each func(message) error) error {
	var fault error
	for {
		b, err := s.read(0)
		if err != nil {
			if err == unix.EAGAIN {
				return errLost
			}
			return err
		}
		for m, rest, ok := nextMessage(b); ok; m, rest, ok = nextMessage(rest) {
			if m.seq != seq {
				continue
			}
			if m.flags&unix.NLM_F_DUMP_INTR != 0 && fault == nil {
				fault = errInterrupted
			}
			switch {
			case m.kind == unix.NLMSG_ERROR:
				return cmp.Or(fault, m.asError())
			case m.kind == unix.NLMSG_DONE:
				return fault
			case fault == nil:
				fault = each(m)
			}
			if !dump {
				return fault
			}
		}
	}
}

// errInterrupted says that the rules changed while they were read.
var errInterrupted = errors.New("the rules changed while they were read")
