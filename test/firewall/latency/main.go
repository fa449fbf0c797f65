// Command latency measures how long after the last failed login a tool drops
// the attacker's packets, for any tool that reads an sshd log and filters this
// network namespace: this agent, fail2ban, sshguard. Each round plays another
// attacker: it appends failed logins to the log and sends SYNs to the port from
// the attacker's address, in a namespace of its own behind a cable, until they
// are no longer answered.
//
// Run it as root in the namespace that the tool filters, with nothing
// listening on the port (a closed port's RST is the answer that ends):
//
//	unshare -n sh -c 'TOOL & latency -log /tmp/auth.log'
//
// It prints one line a figure: figure NAME VALUE UNIT aim AIM.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	log      string
	rounds   int
	failures int
	port     int
	iso      bool
	sources  netip.Prefix
	patience time.Duration
	name     string
}

func main() {
	var o options
	flag.StringVar(&o.log, "log", "", "the sshd log that the tool reads; lines are appended")
	flag.IntVar(&o.rounds, "rounds", 30, "how many attackers")
	flag.IntVar(&o.failures, "failures", 5, "failed logins of each, the last of which must trigger the ban")
	flag.IntVar(&o.port, "port", 22, "TCP port that the ban closes; nothing may listen on it")
	flag.BoolVar(&o.iso, "iso", false, "write ISO 8601 times instead of syslog's")
	flag.DurationVar(&o.patience, "patience", 30*time.Second, "how long to wait for a ban")
	flag.StringVar(&o.name, "name", "agent", "the tool's name in the figures")
	sources := flag.String("sources", "45.148.0.0/16", "where attackers come from; nothing leaves this machine")
	flag.Parse()
	var err error
	if o.sources, err = netip.ParsePrefix(*sources); err == nil && o.log == "" {
		err = errors.New("-log is needed")
	}
	if err == nil {
		runtime.LockOSThread()
		err = measure(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "latency: error:", err)
		os.Exit(1)
	}
}

// local is this end of the cable. It is in a range that benchmarks own (RFC 2544).
const (
	local  = "198.18.255.1"
	remote = "198.18.255.2"
)

func measure(o options) error {
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := cable(here, o.sources); err != nil {
		return err
	}
	// The thread is in the attackers' namespace now.
	send, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	receive, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(o.log, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	p := prober{send: send, receive: receive, port: uint16(o.port)}
	source := o.sources.Masked().Addr()
	var took []float64
	missed := 0
	for i := range o.rounds {
		source = source.Next()
		p.source = source
		if err := p.answered(); err != nil {
			return fmt.Errorf("%s, before it did anything: %w", source, err)
		}
		var last time.Time
		for range o.failures {
			at := time.Now().Format(time.Stamp)
			if o.iso {
				at = time.Now().Format("2006-01-02T15:04:05.000000-07:00")
			}
			line := fmt.Sprintf("%s host sshd[%d]: Failed password for root from %s port %d ssh2\n", at, 1000+i, source, 40_000+i)
			if _, err := log.WriteString(line); err != nil {
				return err
			}
			last = time.Now()
		}
		d, err := p.untilDropped(last, o.patience)
		if err != nil {
			return err
		}
		if d == 0 {
			if missed++; missed == 3 && len(took) == 0 {
				break
			}
			continue
		}
		took = append(took, float64(d.Microseconds())/1000)
	}
	fmt.Printf("figure %s_login_to_drop_missed %d rounds aim 0\n", o.name, missed)
	if len(took) == 0 {
		return fmt.Errorf("no attacker was banned within %v", o.patience)
	}
	slices.Sort(took)
	fmt.Printf("figure %s_login_to_drop_median %.2f ms aim 5\n", o.name, took[len(took)/2])
	fmt.Printf("figure %s_login_to_drop_p95 %.2f ms aim 100\n", o.name, took[len(took)*95/100])
	return nil
}

// cable makes the attackers' namespace, which owns every address of their
// prefix, and moves the thread there.
func cable(here int, sources netip.Prefix) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a namespace (root is needed): %w", err)
	}
	there, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dup, err := unix.Dup(here)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), "ns")
	defer func() { _ = f.Close() }()
	if err := ip(f, "link", "add", "attack0", "type", "veth", "peer", "name", "victim0", "netns", "/proc/self/fd/3"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"addr", "add", remote + "/24", "dev", "attack0"},
		{"link", "set", "attack0", "up"},
		{"link", "set", "lo", "up"},
		{"route", "add", "local", sources.String(), "dev", "lo"},
	} {
		if err := ip(nil, args...); err != nil {
			return err
		}
	}
	if err := unix.Setns(here, unix.CLONE_NEWNET); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"addr", "add", local + "/24", "dev", "victim0"},
		{"link", "set", "victim0", "up"},
		{"route", "add", sources.String(), "via", remote},
	} {
		if err := ip(nil, args...); err != nil {
			return err
		}
	}
	return unix.Setns(there, unix.CLONE_NEWNET)
}

func ip(file *os.File, args ...string) error {
	cmd := exec.Command("ip", args...)
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

type prober struct {
	send, receive int
	port          uint16
	source        netip.Addr
	number        uint32 // of the SYN
}

// answered waits until a SYN is answered: a fresh cable takes its time.
func (p *prober) answered() error {
	const tries = 20
	for range tries {
		if ok, err := p.probe(500 * time.Millisecond); err != nil || ok {
			return err
		}
	}
	return errors.New("no answer; is the way open, and the port closed?")
}

// untilDropped sends SYNs until two in a row go unanswered, and gives the time
// from since to the first of them; 0 when patience ends.
func (p *prober) untilDropped(since time.Time, patience time.Duration) (time.Duration, error) {
	const unanswered = 20 * time.Millisecond
	for time.Since(since) < patience {
		at := time.Now()
		answered, err := p.probe(unanswered)
		if err != nil {
			return 0, err
		}
		if answered {
			continue
		}
		if answered, err = p.probe(unanswered); err != nil {
			return 0, err
		}
		if !answered {
			return max(at.Sub(since), 1), nil
		}
	}
	return 0, nil
}

// probe sends a SYN and says whether an answer to it comes in time.
func (p *prober) probe(wait time.Duration) (bool, error) {
	p.number++
	from, to := p.source.As4(), netip.MustParseAddr(local).As4()
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(b[12:], from[:])
	copy(b[16:], to[:])
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, uint16(1024+p.number%60_000))
	binary.BigEndian.PutUint16(tcp[2:], p.port)
	binary.BigEndian.PutUint32(tcp[4:], p.number)
	tcp[12], tcp[13] = 5<<4, 0x02
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	sum := uint32(unix.IPPROTO_TCP + 20)
	for i := 12; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	if err := unix.Sendto(p.send, b, 0, &unix.SockaddrInet4{Addr: to}); err != nil {
		return false, err
	}
	deadline := time.Now().Add(wait)
	in := make([]byte, 256)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		poll := []unix.PollFd{{Fd: int32(p.receive), Events: unix.POLLIN}}
		timeout := unix.NsecToTimespec(left.Nanoseconds())
		if n, err := unix.Ppoll(poll, &timeout, nil); err != nil && err != unix.EINTR {
			return false, err
		} else if n < 1 {
			continue
		}
		n, _, err := unix.Recvfrom(p.receive, in, unix.MSG_DONTWAIT)
		if err != nil || n < 40 {
			continue
		}
		// An answer acknowledges the SYN's number plus one.
		answer := in[int(in[0]&15)*4 : n]
		if len(answer) >= 20 && [4]byte(in[16:20]) == from && binary.BigEndian.Uint32(answer[8:]) == p.number+1 {
			return true, nil
		}
	}
}
