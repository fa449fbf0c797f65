package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	frameSize   = 64
	sources     = 65_536
	perRound    = 50_000
	firstSource = 0xc6000000 // 198.0.0.0/8, which is never banned here
)

// A receiver is a namespace with a ruleset and a cable to its own sender.
type receiver struct {
	name    string
	ns      int
	sender  int // AF_PACKET socket at the other end
	random  []float64
	hot     []float64
	prepare func() error
}

// packets measures the cost of a packet of an address that is not banned: the
// least of many short rounds in turn, since other work on the machine only ever
// adds.
func packets(count, rounds int) error {
	cases := []*receiver{
		{name: "empty", prepare: func() error { return nil }},
		{name: "one_topic", prepare: func() error { return loaded(count, 1) }},
		{name: "ten_topics", prepare: func() error { return loaded(count, 10) }},
		{name: "iptables_1k", prepare: func() error { return linear(1_000) }},
	}
	for _, c := range cases {
		if err := c.build(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	hot, random := frames(1), frames(sources)
	for range rounds {
		for _, c := range cases {
			for _, v := range []struct {
				frames [][]byte
				into   *[]float64
			}{{hot, &c.hot}, {random, &c.random}} {
				cost, err := c.send(v.frames)
				if err != nil {
					return err
				}
				*v.into = append(*v.into, cost)
			}
		}
	}
	base := cases[0]
	for _, c := range cases {
		figure("packet_"+c.name+"_hot", slices.Min(c.hot), "ns", "-")
		figure("packet_"+c.name+"_random", slices.Min(c.random), "ns", "-")
	}
	for _, c := range cases[1:] {
		figure("packet_"+c.name+"_hot_added", slices.Min(c.hot)-slices.Min(base.hot), "ns", "-")
		figure("packet_"+c.name+"_random_added", slices.Min(c.random)-slices.Min(base.random), "ns", "-")
	}
	one, ten, table := cases[1], cases[2], cases[3]
	figure("clean_packet_hot_of_empty", slices.Min(one.hot)/slices.Min(base.hot), "ratio", "<=1.15")
	figure("clean_packet_random_of_empty", slices.Min(one.random)/slices.Min(base.random), "ratio", "<=1.5")
	figure("ten_topics_of_one_random", slices.Min(ten.random)/slices.Min(one.random), "ratio", "<=1.05")
	figure("ten_topics_of_one_hot", slices.Min(ten.hot)/slices.Min(one.hot), "ratio", "<=1.05")
	figure("iptables_1k_added_times_ours_random", (slices.Min(table.random)-slices.Min(base.random))/(slices.Min(one.random)-slices.Min(base.random)), "x", ">=15")
	return nil
}

func loaded(count, topics int) error {
	_, err := child("-role", "load", "-bans", strconv.Itoa(count), "-topics", strconv.Itoa(topics))
	return err
}

// linear makes the rules of a tool with one rule a ban.
func linear(rules int) error {
	path := filepath.Join(os.TempDir(), "banmesh-bench-rules-"+strconv.Itoa(os.Getpid()))
	defer func() { _ = os.Remove(path) }()
	err := script(path, func(w *bufio.Writer) {
		fmt.Fprintln(w, "*raw\n:PREROUTING ACCEPT [0:0]")
		for i := range rules {
			fmt.Fprintf(w, "-A PREROUTING -s %s/32 -j DROP\n", address(i))
		}
		fmt.Fprintln(w, "COMMIT")
	})
	if err != nil {
		return err
	}
	_, _, _, err = timed(path, "iptables-legacy-restore")
	return err
}

// build makes the namespace, the cable, a socket that nobody reads, and the
// ruleset.
func (r *receiver) build() (err error) {
	sending, err := fresh()
	if err != nil {
		return err
	}
	if r.ns, err = fresh(); err != nil {
		return err
	}
	// The sender's end goes to its namespace by a file that the child inherits.
	dup, err := unix.Dup(sending)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), "ns")
	cmd := exec.Command("ip", "link", "add", "in0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "out0", "netns", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if _, _, _, err := timed("", "sh", "-c", "ip addr add 10.0.0.1/8 dev in0 && ip link set in0 up && ip route add default dev in0 && "+
		"echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter && echo 0 > /proc/sys/net/ipv4/conf/in0/rp_filter"); err != nil {
		return err
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(sock, &unix.SockaddrInet4{Port: 22, Addr: [4]byte{10, 0, 0, 1}}); err != nil {
		return err
	}
	if err := r.prepare(); err != nil {
		return err
	}
	if err := unix.Setns(sending, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if _, _, _, err := timed("", "ip", "link", "set", "out0", "up"); err != nil {
		return err
	}
	if r.sender, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	// Past the queueing discipline, so that more of the measured time is the
	// receiver's.
	if err := unix.SetsockoptInt(r.sender, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return err
	}
	b, err := os.ReadFile("/sys/class/net/out0/ifindex")
	index := 0
	if err == nil {
		index, err = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if err != nil || index == 0 {
		// sysfs shows the namespace that it was mounted in; ip does not.
		out, err := exec.Command("ip", "-o", "link", "show", "out0").Output()
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(string(out), "%d:", &index); err != nil {
			return err
		}
	}
	return unix.Bind(r.sender, &unix.SockaddrLinklayer{Ifindex: index})
}

// frames builds UDP datagrams to port 22 from so many different addresses.
func frames(n int) [][]byte {
	r := rand.New(rand.NewPCG(7, 7))
	out := make([][]byte, n)
	for i := range out {
		b := make([]byte, frameSize)
		copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
		ip := b[14:]
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(ip[2:], frameSize-14)
		binary.BigEndian.PutUint32(ip[12:], firstSource|r.Uint32()&0xffffff)
		copy(ip[16:], []byte{10, 0, 0, 1})
		sum := uint32(0)
		for j := 0; j < 20; j += 2 {
			sum += uint32(binary.BigEndian.Uint16(ip[j:]))
		}
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum&0xffff+sum>>16))
		binary.BigEndian.PutUint16(ip[20:], 40000)
		binary.BigEndian.PutUint16(ip[22:], 22)
		binary.BigEndian.PutUint16(ip[24:], frameSize-34)
		out[i] = b
	}
	return out
}

// burst is how many frames one system call sends.
const burst = 64

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

// send sends a round and gives the CPU nanoseconds a packet.
func (r *receiver) send(frames [][]byte) (float64, error) {
	headers := make([]mmsghdr, len(frames)+burst)
	vectors := make([]unix.Iovec, len(headers))
	for i := range headers {
		f := frames[i%len(frames)]
		vectors[i].Base = &f[0]
		vectors[i].SetLen(len(f))
		headers[i].header.Iov = &vectors[i]
		headers[i].header.SetIovlen(1)
	}
	at, sent := 0, 0
	before := threadTime()
	for sent < perRound {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(r.sender), uintptr(unsafe.Pointer(&headers[at])), burst, 0, 0, 0)
		if errno != 0 && errno != unix.ENOBUFS {
			return 0, errno
		}
		sent += max(int(n), 1)
		at = (at + burst) % len(frames)
	}
	cost := float64(threadTime()-before) / float64(sent)
	runtime.KeepAlive(vectors)
	return cost, nil
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}
