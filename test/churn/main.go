// Command churn keeps a federation busy and unlucky for a while, and prints which lines
// were lost, the differences between ledger, kernel and peers, which commands lied, and
// the growth.
//
//	churn -bin bin -for 30m
//
// It needs root: everything runs in a network and a mount namespace of its own. A node
// bans fifty addresses a second out of a log that is rotated, and some more by
// a program; three others subscribe. Bans end after a sixth of the time, so that soon as
// many end as begin. In the first half agents and the broker are killed, paused, reloaded
// and cut off, and the disk of all states stops answering for seconds. In the second half
// nobody is killed, so that whoever grows is seen to. It exits with 1 where anything was
// lost, differs, or was not as a command said.
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

const subscribers = 3

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
	w, err := newWorld(ctx, *bin, dir, rand.New(rand.NewPCG(*seed, 1)), max(*lasts/6, time.Minute).Round(time.Second))
	defer w.close()
	if err != nil {
		return err
	}
	fmt.Printf("seed %d, for %s, bans last %s\n", *seed, *lasts, w.banTime)
	if err := w.churn(ctx, *lasts); err != nil {
		return err
	}
	return w.judge(ctx)
}

// churn does something unlucky about every second.
func (w *world) churn(ctx context.Context, lasts time.Duration) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	end := time.Now().Add(lasts)
	calm := end.Add(-lasts / 2)
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := w.load(ctx); err != nil {
			return err
		}
		if err := w.look(ctx); err != nil {
			return err
		}
		list := accidents
		if time.Now().After(calm) {
			list = accidents[:survived]
			w.measure(ctx)
		}
		accident := list[w.random.IntN(len(list))]
		w.done[accident.name]++
		w.diary = append(w.diary, accident.name)
		if err := accident.do(w, ctx); err != nil {
			return fmt.Errorf("%s: %w", accident.name, err)
		}
	}
	return nil
}
