// Package procnet reads the kernel's tables of sockets, /proc/net/tcp and its
// like.
package procnet

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Socket is a line of /proc/net/{tcp,udp}{,6}. IPv4 in IPv6 is unmapped.
type Socket struct {
	Local, Remote netip.AddrPort
	// State is the kernel's number of it, in hexadecimal.
	State string
	User  uint32 // who made it
	Inode string
}

// States of TCP sockets.
const (
	Established = "01"
	Listening   = "0A"
)

// Parse reads a table; a line that it cannot read is left out.
func Parse(b []byte) (list []Socket) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		local, ok1 := address(f[1])
		remote, ok2 := address(f[2])
		user, err := strconv.ParseUint(f[7], 10, 32)
		if ok1 && ok2 && err == nil {
			list = append(list, Socket{local, remote, f[3], uint32(user), f[9]})
		}
	}
	return list
}

// TCP gives the TCP sockets of this process's network. root is "/", but in
// tests.
func TCP(root string) (list []Socket, err error) {
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(filepath.Join(root, "/proc/thread-self/net", name))
		if errors.Is(err, os.ErrNotExist) && name == "tcp6" {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		list = append(list, Parse(b)...)
	}
	return list, nil
}

// address reads "0100007F:0016": the address as 32-bit words in the machine's
// byte order, the port in hexadecimal.
func address(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	b, err2 := hex.DecodeString(host)
	if !ok || err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}
