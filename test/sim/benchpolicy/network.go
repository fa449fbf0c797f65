package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// network makes operators and the policy that knows them.
func network(operators int) (*policy.Policy, []ban.Feed, error) {
	s := policy.Source{Operators: map[string]policy.OperatorSource{}, Groups: map[string][]string{}, Topics: map[string]policy.TopicSource{
		// Budgets are not measured here: with them, most changes of this bench
		// would wait.
		"sshd": {Ban: "any of core or 2 of everyone within 6h", Watch: "any of everyone", Limits: &policy.LimitsSource{
			PerHour: number(1 << 24), Live: number(1 << 24), Addresses: number(1<<31 - 1), Decided: number(1 << 24),
		}},
	}}
	feeds := make([]ban.Feed, operators)
	for i := range feeds {
		name := "op" + strconv.Itoa(i)
		id := ban.OperatorOf([]byte(name))
		feeds[i] = ban.Feed{Topic: "sshd", Operator: id, Node: ban.NodeOf([]byte(name))}
		s.Operators[name] = policy.OperatorSource{ID: id.String()}
		if i < 5 {
			s.Groups["core"] = append(s.Groups["core"], name)
		}
	}
	p, err := policy.Compile(s, nil)
	return p, feeds, err
}

func number(n int) *int { return &n }

type protection struct{ ban.Prefixes[string] }

func (p protection) Protects(t ban.Target) (string, bool) {
	q, ok := t.Prefix()
	if !ok {
		return "", false
	}
	_, why, ok := p.Overlaps(q)
	return why, ok
}

// target gives the n-th target: nine IPv4 addresses to one IPv6 /64.
func target(n int) ban.Target {
	h := uint64(n) * 0x9e3779b97f4a7c15 // spread over the space, without a repeat
	if n%10 == 0 {
		t, err := ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x2a, 0, byte(h >> 56), byte(h >> 48), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 64))
		if err != nil {
			panic(err)
		}
		return t
	}
	a := uint32(n)*2654435761%0xbf000000 + 0x01000000
	t, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}))
	if err != nil {
		panic(err)
	}
	return t
}

func claim(n int, now time.Time, rng *rand.Rand) ban.Claim {
	return ban.Claim{
		Target: target(n), End: now.Add(time.Duration(10+rng.IntN(14400)) * time.Minute).Truncate(time.Minute).Add(time.Minute),
		Class: ban.ClassAuth, Hits: uint8(3 + rng.IntN(20)), Established: true, Basis: ban.BasisStrong,
	}
}

func figure(name, value, unit, aim string) {
	fmt.Printf("figure %s %s %s aim %s\n", name, value, unit, aim)
}

// stopwatch measures wall-clock and processor time: on a machine that does
// other things too, only the second says something about this program.
type stopwatch struct {
	wall time.Time
	cpu  time.Duration
}

type measured struct{ wall, cpu time.Duration }

func begin() stopwatch { return stopwatch{time.Now(), processor()} }

func (s stopwatch) end() measured { return measured{time.Since(s.wall), processor() - s.cpu} }

func (m measured) print(name, aim string) {
	figure(name, seconds(m.wall), "s", aim)
	figure(name+"_cpu", seconds(m.cpu), "CPU-s", aim)
}

// processor is the time that this process has used on all processors.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func micro(d time.Duration) string   { return fmt.Sprintf("%.2f", float64(d)/float64(time.Microsecond)) }
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// heap is the reachable memory in bytes. The resident memory of a process is up
// to twice that, as GOGC says.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
