// Journal measures and torments the journal reader with a real journald, which
// it runs in a mount namespace of its own. It needs root.
//
//	journal bench [-entries N]    entries a CPU second against journalctl, equal texts
//	journal latency [-count N]    from sending a message to its line, against journalctl -f
//	journal torture [-count N]    rotation, flush to disk, two users, restarts: none lost, none twice
//
// It exits with 1 if an aim is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// inside says to the program started again that it is in its own namespace.
const inside = "JOURNAL_TEST_INSIDE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "journal: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("journal", flag.ContinueOnError)
	entries := flags.Int("entries", 200_000, "entries of the benchmark")
	count := flags.Int("count", 0, "messages to send (latency: 60, torture: 20000)")
	if len(args) == 0 {
		return fmt.Errorf("usage: journal bench|latency|torture|send [options]")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	number := func(otherwise int) int {
		if *count > 0 {
			return *count
		}
		return otherwise
	}
	switch args[0] {
	case "bench":
		return bench(ctx, *entries)
	case "send":
		return send(ctx, flags.Args())
	case "latency", "torture":
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
	if os.Getenv(inside) == "" {
		return again(ctx, args)
	}
	if args[0] == "latency" {
		return latency(ctx, number(60))
	}
	return torture(ctx, number(20_000))
}

// again runs the program in a mount namespace.
func again(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}

// figure prints one result and says whether it meets the aim.
func figure(name string, value float64, unit, aim string) {
	fmt.Printf("figure %s %.4g %s aim %s\n", name, value, unit, aim)
}
