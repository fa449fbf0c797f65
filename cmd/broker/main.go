// Command broker is the community broker: an MQTT server that offers a network
// of signed feeds to strangers, and needs no trust from them.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"banmesh/internal/cli"
)

// version is set by the build.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, cli.Terminal(os.Stdout), cli.Terminal(os.Stderr))
	stop()
	os.Exit(code)
}

// run is main without the process: the first signal ends ctx, the second kills.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	context.AfterFunc(ctx, func() { signal.Reset(syscall.SIGINT, syscall.SIGTERM) })
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	return cli.Report(errs, "broker", explain(root.ExecuteContext(ctx)))
}
