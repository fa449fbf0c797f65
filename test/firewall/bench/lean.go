package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lean loads the bans as cheaply as any program can: no state, no checks, the
// bytes of one message after the other. That cost is the kernel's work.
func lean(count int) error {
	const table = "table inet lean { map m { type ipv4_addr : mark; flags timeout; }; chain c { type filter hook prerouting priority raw; ip saddr @m drop; }; }"
	if _, _, _, err := timed("", "nft", table); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20); err != nil {
		return err
	}
	base := time.Now().Truncate(24 * time.Hour)
	now := time.Now()
	const transaction, header, element = 1_000, 20, 40
	b, answer := make([]byte, 0, 64<<10), make([]byte, 8<<10)
	begin := func(kind, flags uint16, family byte, id uint16) int {
		b = binary.NativeEndian.AppendUint32(b, header)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, family, 0)
		b = binary.BigEndian.AppendUint16(b, id)
		return len(b) - header
	}
	head := func(length int, kind uint16) {
		b = binary.NativeEndian.AppendUint16(b, uint16(length))
		b = binary.NativeEndian.AppendUint16(b, kind)
	}
	const nested = unix.NLA_F_NESTED
	cpu, kernel := cpuTime()
	for i := 0; i < count; {
		b = b[:0]
		begin(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES)
		message := begin(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_INET, 0)
		head(9, unix.NFTA_SET_ELEM_LIST_TABLE)
		b = append(b, "lean\x00\x00\x00\x00"...)
		head(6, unix.NFTA_SET_ELEM_LIST_SET)
		b = append(b, "m\x00\x00\x00"...)
		n := min(transaction, count-i)
		head(4+n*element, unix.NFTA_SET_ELEM_LIST_ELEMENTS|nested)
		for range n {
			a := address(i).As4()
			head(element, unix.NFTA_LIST_ELEM|nested)
			head(12, unix.NFTA_SET_ELEM_KEY|nested)
			head(8, unix.NFTA_DATA_VALUE)
			b = append(b, a[:]...)
			head(12, unix.NFTA_SET_ELEM_TIMEOUT)
			b = binary.BigEndian.AppendUint64(b, uint64(end(base, i).Sub(now).Milliseconds()))
			head(12, unix.NFTA_SET_ELEM_DATA|nested)
			head(8, unix.NFTA_DATA_VALUE)
			b = append(b, 1, 0, 0, 1)
			i++
		}
		binary.NativeEndian.PutUint32(b[message:], uint32(len(b)-message))
		begin(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES)
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		switch n, _, err := unix.Recvfrom(fd, answer, 0); {
		case err != nil:
			return err
		case n < header:
			return errors.New("no answer")
		}
		if e := int32(binary.NativeEndian.Uint32(answer[16:])); e != 0 {
			return fmt.Errorf("the kernel refuses elements: %w", unix.Errno(-e))
		}
	}
	cpuAfter, kernelAfter := cpuTime()
	return json.NewEncoder(os.Stdout).Encode(report{CPU: ms(cpuAfter - cpu), Kernel: ms(kernelAfter - kernel)})
}

// listeners names the programs that hear of every change in nf_tables. One of
// them, in whatever network namespace, and each element costs twice as much,
// and one transaction of a million of them many times as much.
func listeners() string {
	var found []string
	processes, _ := os.ReadDir("/proc")
	seen := map[string]bool{}
	for _, p := range processes {
		ns, err := os.Readlink("/proc/" + p.Name() + "/ns/net")
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		sockets, _ := os.ReadFile("/proc/" + p.Name() + "/net/netlink")
		for line := range strings.Lines(string(sockets)) {
			const protocol, port, groups = 1, 2, 3
			if f := strings.Fields(line); len(f) > groups && f[protocol] == "12" && f[groups] != "00000000" {
				found = append(found, f[port])
			}
		}
	}
	return strings.Join(found, ", ")
}
