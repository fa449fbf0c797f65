// Command churn keeps a federation busy and unlucky for a while, and prints which lines
// were lost, the differences between ledger, kernel and peers, and the growth.
//
//	churn -bin bin -for 30m
//
// It needs root: everything runs in a network and a mount namespace of its own. A node
// bans fifty addresses a second out of a log that is rotated, and some more by
// a program; three others subscribe. Meanwhile agents are killed, paused and
// reloaded, the broker is restarted and cut off, and the disk of all states stops
// answering for seconds. It exits with 1 where
// anything was lost or differs.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The load: bans a second out of the log, and handed over by a program.
const (
	fromLog     = 50
	fromProgram = 5
	subscribers = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The namespace is of this thread, and every program is started by it.
	runtime.LockOSThread()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "churn: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	bin := flag.String("bin", "bin", "the directory of agent and broker")
	lasts := flag.Duration("for", 30*time.Minute, "how long")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the accidents")
	flag.Parse()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making namespaces, as root: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	dir, err := os.MkdirTemp("", "churn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(ctx, *bin, dir, rand.New(rand.NewPCG(*seed, 1)))
	if err != nil {
		return err
	}
	defer w.close()
	fmt.Printf("seed %d, for %s\n", *seed, *lasts)
	if err := w.churn(ctx, *lasts); err != nil {
		return err
	}
	return w.judge(ctx, *lasts)
}

// churn does something unlucky about every second.
func (w *world) churn(ctx context.Context, lasts time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	end := time.Now().Add(lasts)
	first := end.Add(-lasts * 2 / 3)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := w.load(ctx); err != nil {
			return err
		}
		accident := accidents[w.random.IntN(len(accidents))]
		w.done[accident.name]++
		w.diary = append(w.diary, accident.name)
		if err := accident.do(w, ctx); err != nil {
			return fmt.Errorf("%s: %w", accident.name, err)
		}
		if w.early == nil && time.Now().After(first) {
			w.early = w.sizes()
		}
	}
	return nil
}

// An accident is something that happens to a node or to its broker.
type accident struct {
	name string
	do   func(*world, context.Context) error
}

var accidents = []accident{
	{"log rotated by a new file", func(w *world, _ context.Context) error { return w.rotate(false) }},
	{"log rotated by copying", func(w *world, _ context.Context) error { return w.rotate(true) }},
	{"author killed", func(w *world, ctx context.Context) error { return w.restart(ctx, w.nodes[0]) }},
	{"subscriber killed", func(w *world, ctx context.Context) error {
		return w.restart(ctx, w.nodes[1+w.random.IntN(subscribers)])
	}},
	{"broker killed", func(w *world, ctx context.Context) error { return w.restart(ctx, w.broker) }},
	{"broker cut off", func(w *world, _ context.Context) error { return w.pause(w.broker) }},
	{"author starved", func(w *world, _ context.Context) error { return w.pause(w.nodes[0]) }},
	{"reload", func(w *world, _ context.Context) error {
		return w.nodes[w.random.IntN(len(w.nodes))].signal(syscall.SIGHUP)
	}},
	{"disk stalls", func(w *world, ctx context.Context) error {
		return w.disk.freeze(ctx, time.Duration(500+w.random.IntN(2500))*time.Millisecond)
	}},
	{"nothing", func(*world, context.Context) error { return nil }},
	{"nothing", func(*world, context.Context) error { return nil }},
}

// pause stops a process for some seconds, which go by while the load goes on.
func (w *world) pause(p *process) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	w.resume = append(w.resume, resumed{p, time.Now().Add(time.Duration(1+w.random.IntN(4)) * time.Second)})
	return nil
}
