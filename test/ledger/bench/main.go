// Bench measures the cost of a person's long lists for a running agent: denials,
// bans and unbans of many targets over the control socket, and questions about
// one target of many. The agent runs in this process, so processor time is that
// of both sides.
//
//	go run ./test/ledger/bench [-targets 20000]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"banmesh/internal/agent"
	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// settings is a node that enforces nothing and shares nothing.
const settings = `[embedded_broker]
listen = "127.0.0.1:0"
[firewall]
mode = "off"
[topics.sshd]
detect = false
`

func main() {
	targets := flag.Int("targets", control.MaxBulk, "targets of a list")
	flag.Parse()
	dir, err := os.MkdirTemp("", "benchledger")
	if err == nil {
		err = errors.Join(run(dir, *targets), os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// run starts an agent, measures, and stops it.
func run(dir string, targets int) error {
	config := filepath.Join(dir, "config")
	if err := errors.Join(os.Mkdir(config, 0o755), os.WriteFile(filepath.Join(config, "agent.toml"), []byte(settings), 0o600)); err != nil {
		return err
	}
	socket := filepath.Join(dir, "s")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{ConfigDir: config, StateDir: filepath.Join(dir, "state"), Socket: socket})
	}()
	client := control.NewClient(socket)
	for client.Get(ctx, "/v1/status", nil, nil) != nil {
		select {
		case err := <-done:
			stop()
			return err
		case <-time.After(20 * time.Millisecond): // the agent opens its socket last
		}
	}
	err := measure(ctx, client, targets)
	stop()
	return errors.Join(err, <-done)
}

func measure(ctx context.Context, client *control.Client, n int) error {
	for _, list := range []struct {
		name  string
		topic ban.Topic
		of    func(int) (ban.Target, error)
	}{
		{"denials", "broadcaster-addresses", walletOf},
		{"bans", "sshd", addressOf},
	} {
		targets := make([]ban.Target, n)
		for i := range targets {
			var err error
			if targets[i], err = list.of(i); err != nil {
				return err
			}
		}
		if err := measureList(ctx, client, list.name, list.topic, targets); err != nil {
			return fmt.Errorf("%s: %w", list.name, err)
		}
	}
	return nil
}

// measureList bans targets, asks about one, and unbans them.
func measureList(ctx context.Context, client *control.Client, name string, topic ban.Topic, targets []ban.Target) error {
	class := ban.ClassManual
	var q control.BanAllRequest
	for _, t := range targets {
		q.Bans = append(q.Bans, control.BanRequest{Target: t, Topic: topic, For: 86_400, Class: &class})
	}
	watch := begin()
	var made control.BanAllAnswer
	if err := client.Post(ctx, "/v1/bans/all", q, &made); err != nil {
		return err
	}
	watch.print(name, "1")
	if made.Banned != len(targets) {
		return fmt.Errorf("%d of %d are banned: %+v", made.Banned, len(targets), made.Refused[:1])
	}
	const questions = 200
	watch = begin()
	for i := range questions {
		if err := client.Get(ctx, "/v1/explain", url.Values{"target": {targets[i%len(targets)].String()}}, nil); err != nil {
			return err
		}
	}
	figure("ask_about_one_of_"+name, fmt.Sprintf("%.2f", float64(time.Since(watch.wall))/questions/float64(time.Millisecond)), "ms", "5")
	watch = begin()
	for i := range questions {
		one := q.Bans[i%len(targets)]
		if err := client.Post(ctx, "/v1/bans", one, nil); err != nil {
			return err
		}
	}
	figure("ban_one_beside_"+name, fmt.Sprintf("%.2f", float64(time.Since(watch.wall))/questions/float64(time.Millisecond)), "ms", "-")
	watch = begin()
	var lifted control.UnbanAnswer
	if err := client.Post(ctx, "/v1/unban", control.UnbanRequest{Targets: targets, Topic: topic}, &lifted); err != nil {
		return err
	}
	watch.print("un"+name, "1")
	if len(lifted.Lifted) != len(targets) {
		return fmt.Errorf("%d of %d are lifted", len(lifted.Lifted), len(targets))
	}
	return nil
}

func walletOf(n int) (ban.Target, error) {
	return ban.TargetOfWallet([20]byte{0x42, byte(n >> 16), byte(n >> 8), byte(n), 19: 1})
}

// addressOf gives the n-th address of 45.0.0.0/8.
func addressOf(n int) (ban.Target, error) {
	return ban.TargetOfAddr(netip.AddrFrom4([4]byte{45, byte(n >> 16), byte(n >> 8), byte(n)}))
}

func figure(name, value, unit, aim string) {
	fmt.Printf("figure %s %s %s aim %s\n", name, value, unit, aim)
}

// stopwatch measures wall-clock and processor time.
type stopwatch struct {
	wall time.Time
	cpu  time.Duration
}

func begin() stopwatch { return stopwatch{time.Now(), processor()} }

func (s stopwatch) print(name, aim string) {
	wall, cpu := time.Since(s.wall), processor()-s.cpu
	figure(name, fmt.Sprintf("%.2f", wall.Seconds()), "s", aim)
	figure(name+"_cpu", fmt.Sprintf("%.2f", cpu.Seconds()), "CPU-s", aim)
}

// processor is the time that this process has used on all processors.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
