package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/term"
)

// Hangup defines SIGHUP to a program that runs until it is stopped. In
// a person's terminal it means that the terminal is gone: the context ends. A
// service is asked to look at its configuration: each signal goes to again. What
// was started with SIGHUP ignored, as by nohup, goes on ignoring it.
// Its output may lose its reader, see [OutliveReaders].
func Hangup(ctx context.Context) (_ context.Context, again <-chan os.Signal, stop context.CancelFunc) {
	OutliveReaders()
	switch {
	case signal.Ignored(syscall.SIGHUP):
		return ctx, nil, func() {}
	case slices.ContainsFunc([]int{0, 1, 2}, isTerminal):
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		return ctx, nil, stop
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return ctx, signals, func() { signal.Stop(signals) }
}

func isTerminal(fd int) bool { return term.IsTerminal(fd) }

// OutliveReaders lets a program go on when whoever reads its output is gone, as a journal
// that restarts. Other programs end then, which is meant where they stand in a pipe.
func OutliveReaders() { signal.Ignore(syscall.SIGPIPE) }
