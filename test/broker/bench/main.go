// Command bench compares the community broker with mosquitto and nats-server
// under the same load, in one run, one server at a time.
//
//	go run ./test/broker/bench -broker bin/broker -nats /path/to/nats-server
//
// It prints one line a figure: figure NAME VALUE UNIT aim AIM.
package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"banmesh/internal/wire"
	"banmesh/test/broker/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

type bench struct {
	open     server
	servers  []server
	sizes    []int
	duration time.Duration
	rounds   int
	fault    string
}

func run(ctx context.Context) error {
	brokerBinary := flag.String("broker", "bin/broker", "the community broker")
	natsBinary := flag.String("nats", "", "nats-server; empty leaves it out")
	sizes := flag.String("subscribers", "200,1000,5000", "numbers of subscribers")
	duration := flag.Duration("duration", 4*time.Second, "of one load")
	rounds := flag.Int("rounds", 1, "rounds, of which the median counts")
	only := flag.String("only", "", "comma-separated parts: fanout, latency, admission, connections, join, stalled, restart, faults; empty is all")
	fault := flag.String("fault", "", "of the part faults, only the disturbance whose name begins so")
	other := flag.String("disturb", "", "run only this disturbance, against -address, until standard input ends")
	address := flag.String("address", "", "of -disturb")
	flag.Parse()
	raiseDescriptors()
	if *other != "" {
		return disturb(ctx, *other, *address)
	}
	b := &bench{open: withoutAdmission(*brokerBinary), servers: []server{ours(*brokerBinary), mosquitto()}, duration: *duration, rounds: *rounds, fault: *fault}
	if *natsBinary != "" {
		b.servers = append(b.servers, nats(*natsBinary))
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("-subscribers: %w", err)
		}
		b.sizes = append(b.sizes, n)
	}
	var errs []error
	for _, part := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"fanout", b.fanout}, {"latency", b.latency}, {"admission", b.admission}, {"connections", b.connections}, {"join", b.join}, {"stalled", b.stalled}, {"restart", b.restart}, {"faults", b.faults},
	} {
		if *only != "" && !strings.Contains(","+*only+",", ","+part.name+",") {
			continue
		}
		if err := part.f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	return errors.Join(errs...)
}

// with runs f against a fresh server.
func with(s server, f func(*process) error) error {
	dir, err := os.MkdirTemp("", "bench-broker-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := s.start(dir)
	if err != nil {
		return err
	}
	if err = f(p); err != nil {
		err = fmt.Errorf("%s: %w", s.name, err)
	}
	return errors.Join(err, p.stop())
}

func figure(name string, value float64, unit, aim string) {
	fmt.Printf("figure %s %.4g %s aim %s\n", name, value, unit, aim)
}

// ratio prints ours to theirs.
func ratio(name string, ours, theirs float64, aim string) {
	if theirs > 0 {
		figure(name, ours/theirs, "ratio", aim)
	}
}

const (
	publishers = 10
	payload    = 300
	window     = 20
)

func (b *bench) fanout(ctx context.Context) error {
	for _, n := range b.sizes {
		rate, cost := map[string]float64{}, map[string]float64{}
		for _, s := range b.servers {
			var rates, costs []float64
			for range b.rounds {
				err := with(s, func(p *process) error {
					r, err := load.Fanout{
						Address: p.address, Publishers: publishers, Subscribers: n, Size: payload, Window: window, Duration: b.duration, CPU: p.cpu,
					}.Run(ctx)
					rates = append(rates, r.PerSecond())
					costs = append(costs, float64(r.CPUPerDelivery())/float64(time.Microsecond))
					if r.Lost != 0 {
						fmt.Printf("note: %s at %d subscribers: %d of %d deliveries did not come\n", s.name, n, r.Lost, r.Delivered+r.Lost)
					}
					return err
				})
				if err != nil {
					fmt.Printf("note: %v\n", err)
				}
			}
			rate[s.name], cost[s.name] = median(rates), median(costs)
			figure(fmt.Sprintf("%s_deliveries_%d", s.name, n), rate[s.name], "per_second", "-")
			figure(fmt.Sprintf("%s_cpu_per_delivery_%d", s.name, n), cost[s.name], "us", "-")
		}
		ratio(fmt.Sprintf("throughput_to_mosquitto_%d", n), rate["banmesh"], rate["mosquitto"], ">=1.0")
		ratio(fmt.Sprintf("cpu_to_mosquitto_%d", n), cost["banmesh"], cost["mosquitto"], "<=1.0")
		ratio(fmt.Sprintf("throughput_to_nats_%d", n), rate["banmesh"], rate["nats"], ">=3.0")
	}
	return nil
}

// admission measures how much of the processor time goes into deciding on
// let in: signatures, certificates, quotas. It is the cost that a broker that decides
// nothing needs less for a delivery, which is of use only where deliveries are
// few: with many receivers the difference is smaller than that between two runs
// by. The two run in turn, so that a machine that becomes slower is so for both.
// A signature alone is measured in this process.
func (b *bench) admission(ctx context.Context) error {
	signature, err := verification()
	if err != nil {
		return err
	}
	figure("signature_cpu", float64(signature)/float64(time.Microsecond), "us", "-")
	for _, n := range b.sizes {
		var shares, signatures []float64
		for range max(3, b.rounds) {
			cost := map[string]float64{}
			for _, s := range []server{b.servers[0], b.open} {
				err := with(s, func(p *process) error {
					r, err := load.Fanout{
						Address: p.address, Publishers: publishers, Subscribers: n, Size: payload, Window: window, Duration: b.duration, CPU: p.cpu,
					}.Run(ctx)
					cost[s.name] = float64(r.CPUPerDelivery())
					return err
				})
				if err != nil {
					return err
				}
			}
			shares = append(shares, 100*(cost["banmesh"]-cost["open"])/cost["banmesh"])
			signatures = append(signatures, 100*float64(signature)/(cost["banmesh"]*float64(n)))
		}
		figure(fmt.Sprintf("admission_share_of_cpu_%d", n), median(shares), "percent", "<=15")
		figure(fmt.Sprintf("signature_share_of_cpu_%d", n), median(signatures), "percent", "-")
	}
	return nil
}

// verification is the processor time that the signature of one publication of
// the load takes to check, alone.
func verification() (time.Duration, error) {
	_, body, err := load.NewAuthor(0).Next(payload, time.Now())
	if err != nil {
		return 0, err
	}
	h, err := wire.Peek(body)
	if err != nil {
		return 0, err
	}
	const times = 20_000
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_THREAD, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := cpu()
	for range times {
		if !ed25519.Verify(h.Signer[:], body[ed25519.SignatureSize:], body[:ed25519.SignatureSize]) {
			return 0, errors.New("the load is not signed")
		}
	}
	return (cpu() - began) / times, nil
}

// offered is the fixed load of the latency part, in deliveries a second.
const offered = 20_000

func (b *bench) latency(ctx context.Context) error {
	for _, n := range b.sizes {
		p99 := map[string]float64{}
		for _, s := range b.servers {
			var p50s, p99s []float64
			for range b.rounds {
				err := with(s, func(p *process) error {
					r, err := load.Fanout{
						Address: p.address, Publishers: publishers, Subscribers: n, Size: payload, Window: 1000, Rate: offered, Duration: b.duration, CPU: p.cpu,
					}.Run(ctx)
					p50s = append(p50s, milliseconds(r.P50))
					p99s = append(p99s, milliseconds(r.P99))
					return err
				})
				if err != nil {
					fmt.Printf("note: %v\n", err)
				}
			}
			p99[s.name] = median(p99s)
			figure(fmt.Sprintf("%s_p50_%d", s.name, n), median(p50s), "ms", "-")
			figure(fmt.Sprintf("%s_p99_%d", s.name, n), p99[s.name], "ms", "-")
		}
		ratio(fmt.Sprintf("p99_to_mosquitto_%d", n), p99["banmesh"], p99["mosquitto"], "<=1.3")
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// connections measures memory of connections with one subscription each.
func (b *bench) connections(context.Context) error {
	const n = 3000
	for _, s := range b.servers {
		err := with(s, func(p *process) error {
			before, err := p.rss()
			if err != nil {
				return err
			}
			began := time.Now()
			for i := range n {
				c, err := load.Dial(p.address, fmt.Sprint("idle-", i), 600)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.Subscribe(load.Filter, 1); err != nil {
					return err
				}
			}
			took := time.Since(began)
			time.Sleep(3 * time.Second)
			after, err := p.rss()
			figure(s.name+"_rss_per_1000_connections", float64(after-before)/n*1000/1e6, "MB", "<=40")
			figure(s.name+"_connects", n/took.Seconds(), "per_second", "-")
			cpu, _ := p.cpu()
			time.Sleep(5 * time.Second)
			idle, _ := p.cpu()
			figure(s.name+"_idle_cpu_per_1000_connections", float64(idle-cpu)/float64(5*time.Second)*100*1000/n, "percent", "<=0.3")
			return err
		})
		if err != nil {
			fmt.Printf("note: %v\n", err)
		}
	}
	return nil
}

func raiseDescriptors() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}
