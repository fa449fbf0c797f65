// Command bench compares the community broker with mosquitto and nats-server
// under the same load, in one run, one server at a time.
//
//	go run ./test/broker/bench -broker bin/broker -nats /path/to/nats-server
//
// It prints one line a figure: figure NAME VALUE UNIT aim AIM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
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
	sizes := flag.String("subscribers", "200,1000", "numbers of subscribers")
	duration := flag.Duration("duration", 2*time.Second, "of one load; those of a fixed rate last three times as long")
	rounds := flag.Int("rounds", 1, "rounds, of which the median counts")
	only := flag.String("only", "loads,connections,join,restart,upgrade", "comma-separated parts: loads, connections, join, restart, upgrade; followers; admission, stalled, faults")
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
		{"loads", b.loads},
		{"connections", b.connections},
		{"join", b.join},
		{"restart", b.restart},
		{"upgrade", b.upgrade},
		{"followers", b.followers},
		{"admission", b.admission},
		{"stalled", b.stalled},
		{"faults", b.faults},
	} {
		if !strings.Contains(","+*only+",", ","+part.name+",") {
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

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func raiseDescriptors() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	}
}
