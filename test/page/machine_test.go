package page

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone says that this process is in a network namespace of its own.
const alone = "BANMESH_PAGE_ALONE"

// TestMain runs the tests of root in a network namespace of their own, where the agents
// enforce with nftables and nobody is met but those whom the tests send.
func TestMain(m *testing.M) {
	switch {
	case os.Geteuid() != 0 || os.Getenv("BANMESH_BROWSER") == "":
	case os.Getenv(alone) == "":
		again := exec.Command("/proc/self/exe", os.Args[1:]...)
		again.Env = append(os.Environ(), alone+"=1")
		again.Stdout, again.Stderr = os.Stdout, os.Stderr
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		err := again.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			panic(err)
		}
		os.Exit(0)
	default:
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"link", "add", outside, "type", "veth", "peer", "name", "door"}, {"link", "set", outside, "up"}, {"link", "set", "door", "up"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				panic(string(out))
			}
		}
	}
	os.Exit(m.Run())
}

// enforcing gives the section of agent.toml by which bans act: nftables where the tests
// have a namespace, otherwise a program that does nothing.
func enforcing() string {
	if os.Getenv(alone) != "" {
		return ""
	}
	return "[firewall]\nenforcer = \"hook\"\nhook = [\"/bin/true\"]\n"
}

// outside is the interface through which packets come in from elsewhere.
const outside = "outside"

// knock sends TCP packets from an address to port 22 of this machine, as one who is
// banned does.
func knock(t *testing.T, from string, times int) {
	t.Helper()
	link, err := net.InterfaceByName(outside)
	if err != nil {
		t.Fatal(err)
	}
	door, err := net.InterfaceByName("door")
	if err != nil {
		t.Fatal(err)
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	packet := make([]byte, 40)
	packet[0], packet[3], packet[8], packet[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	source := netip.MustParseAddr(from).As4()
	copy(packet[12:], source[:])
	copy(packet[16:], []byte{198, 51, 100, 1})
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(packet[20:], 40_000)
	binary.BigEndian.PutUint16(packet[22:], 22)
	packet[32], packet[33] = 0x50, 0x02                                            // a header of 20 bytes, SYN
	to := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: link.Index, Halen: 6} // IPv4, in the network's order
	copy(to.Addr[:], door.HardwareAddr)
	for range times {
		if err := unix.Sendto(s, packet, 0, to); err != nil {
			t.Fatal(err)
		}
	}
}

// synchronised has the kernel say that somebody keeps its clock right, until the test
// ends: README shows a machine that is well. Nothing but that word is changed.
func synchronised(t *testing.T) {
	t.Helper()
	const maxError, status = 0x0004, 0x0010 // of adjtimex(2): which fields are set
	var now unix.Timex
	if _, err := unix.Adjtimex(&now); err != nil {
		t.Fatal(err)
	}
	if now.Status&unix.STA_UNSYNC == 0 {
		return
	}
	if _, err := unix.Adjtimex(&unix.Timex{Modes: maxError | status, Status: now.Status &^ unix.STA_UNSYNC}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Adjtimex(&unix.Timex{Modes: status, Status: now.Status}) })
}
