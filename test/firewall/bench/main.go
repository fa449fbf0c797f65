// Command bench measures the packet filter enforcer against the ways that
// other tools take, in the same run on the same machine: nft -f, an nft process
// a ban, ipset restore and linear iptables rules. It needs root, works in
// network namespaces of its own and prints one line a figure:
//
//	figure NAME VALUE UNIT aim AIM
//
// Loads are compared by CPU time (user and system), because wall time on a busy
// machine says little; packets by the CPU time of the thread that sends them,
// which includes the receiver's filter.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/nft"
)

func main() {
	count := flag.Int("bans", 1_000_000, "how many bans")
	role := flag.String("role", "", "internal: what a child does")
	topics := flag.Int("topics", 1, "internal: over how many topics")
	wide := flag.Bool("wide", false, "internal: prefixes instead of addresses")
	singles := flag.Int("singles", 0, "internal: single bans after the load")
	only := flag.String("only", "", "one part: loads, single, restart, prefixes or packets")
	rounds := flag.Int("rounds", 40, "rounds of packets")
	flag.Parse()
	runtime.LockOSThread()
	var err error
	switch *role {
	case "":
		err = bench(*count, *rounds, *only)
	case "load":
		err = load(*count, *topics, *wide, *singles)
	case "lean":
		err = lean(*count)
	default:
		err = fmt.Errorf("unknown role %q", *role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// address gives the i-th banned address: all different, well mixed, within
// 64.0.0.0/2, which no sender of packets here uses.
func address(i int) netip.Addr {
	x := uint32(i)*0x9E3779B1&0x3fffffff | 0x40000000
	return netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
}

// prefix gives the i-th banned prefix, disjoint /28s.
func prefix(i int) netip.Prefix {
	x := 0x40000000 | uint32(i)<<5
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)}), 28)
}

// end spreads the ends over a month, from the next day on.
func end(base time.Time, i int) time.Time {
	return base.Add(24*time.Hour + time.Duration(i*7919%(30*24*3600))*time.Second)
}

func topic(i int) ban.Topic { return ban.Topic("t" + strconv.Itoa(i)) }

func config(topics, limit int) firewall.Config {
	c := firewall.Config{Owner: firewall.OwnerNever, Cap: limit}
	for i := range topics {
		c.Scopes = append(c.Scopes, firewall.Scope{Topic: topic(i), Ports: []uint16{uint16(22 + i)}})
	}
	c.Never = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("127.0.0.0/8")}
	return c
}

// report is a child's account of its load.
type report struct {
	CPU          float64 // milliseconds, of the load alone
	Kernel       float64 // milliseconds of that in the kernel
	Wall         float64 // milliseconds
	RSS          int     // KiB, at most, of the process
	Idle         int     // KiB before
	State        int     // KiB of live heap afterwards: the state
	P50, P99     float64 // microseconds, of a single ban
	Transactions uint32
	Drift        string
}

func load(count, topics int, wide bool, singles int) error {
	// As an agent would be started: memory matters more than the last
	// of the garbage collector's speed.
	debug.SetGCPercent(25)
	base := time.Now().Truncate(24 * time.Hour)
	names := make([]ban.Topic, topics) // made once, as a ledger has them
	for i := range names {
		names[i] = topic(i)
	}
	var all iter.Seq[firewall.Ban] = func(yield func(firewall.Ban) bool) {
		for i := range count {
			p := netip.PrefixFrom(address(i), 32)
			if wide {
				p = prefix(i)
			}
			if !yield(firewall.Ban{Prefix: p, Topic: names[i%topics], Until: end(base, i)}) {
				return
			}
		}
	}
	ctx := context.Background()
	n := nft.New(nft.Options{})
	defer func() { _ = n.Close() }()
	var r report
	r.Idle = status("VmHWM:")
	if err := n.Configure(ctx, config(topics, count+singles+1)); err != nil {
		return err
	}
	before, began := generation(), time.Now()
	cpu, kernel := cpuTime()
	if err := n.Replace(ctx, all); err != nil {
		return err
	}
	cpuAfter, kernelAfter := cpuTime()
	r.CPU, r.Kernel, r.Wall = ms(cpuAfter-cpu), ms(kernelAfter-kernel), ms(time.Since(began))
	r.Transactions = generation() - before
	r.RSS = status("VmHWM:")
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	r.State = int(m.HeapAlloc / 1024)
	var took []float64
	for i := range singles {
		b := []firewall.Ban{{Prefix: netip.PrefixFrom(address(count+i), 32), Topic: topic(0), Until: end(base, i)}}
		at := time.Now()
		if err := n.Apply(ctx, b, nil); err != nil {
			return err
		}
		took = append(took, float64(time.Since(at).Nanoseconds())/1000)
	}
	if singles > 0 {
		slices.Sort(took)
		r.P50, r.P99 = took[len(took)/2], took[len(took)*99/100]
		// Somebody else's change makes the check count elements.
		if out, err := exec.Command("nft", "add", "table", "ip", "somebody").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		d, err := n.Check(ctx)
		if err != nil {
			return err
		}
		r.Drift = strings.Join(d.What, "; ")
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func status(field string) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

func cpuTime() (all, kernel time.Duration) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), time.Duration(u.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// generation asks nft for the ruleset's generation, which it names with every
// monitor line; the cheapest way without the enforcer's own socket is netlink.
func generation() uint32 {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0
	}
	defer func() { _ = unix.Close(fd) }()
	q := make([]byte, 20)
	q[0], q[4], q[5], q[6] = 20, unix.NFT_MSG_GETGEN, unix.NFNL_SUBSYS_NFTABLES, unix.NLM_F_REQUEST
	if unix.Sendto(fd, q, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return 0
	}
	b := make([]byte, 4096)
	if n, _, err := unix.Recvfrom(fd, b, 0); err != nil || n < 28 {
		return 0
	}
	return uint32(b[24])<<24 | uint32(b[25])<<16 | uint32(b[26])<<8 | uint32(b[27])
}

// child runs this program again, in the thread's namespace.
func child(args ...string) (report, error) {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return report{}, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	var r report
	return r, json.Unmarshal(out, &r)
}

// timed runs another program and gives its CPU milliseconds, its most memory in
// KiB and the wall milliseconds.
func timed(stdin, name string, args ...string) (cpu float64, rss int, wall float64, err error) {
	cmd := exec.Command(name, args...)
	if stdin != "" {
		f, err := os.Open(stdin)
		if err != nil {
			return 0, 0, 0, err
		}
		defer func() { _ = f.Close() }()
		cmd.Stdin = f
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("%s %s: %w\n%.500s", name, strings.Join(args, " "), err, out)
	}
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, 0, 0, fmt.Errorf("no usage of %s", name)
	}
	return ms(time.Duration(u.Utime.Nano() + u.Stime.Nano())), int(u.Maxrss), ms(time.Since(began)), nil
}
