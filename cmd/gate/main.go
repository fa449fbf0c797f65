// Command banmesh-gate answers a Livepeer orchestrator's auth webhook from a
// file of denied wallets, which the agent writes. It needs no agent to run:
//
//	banmesh-gate [-listen ADDRESS] [FILE]
//
// FILE is /var/lib/banmesh-gate/wallets when it is left out. The socket is
// systemd's where banmesh-gate.socket is enabled, and ADDRESS (127.0.0.1:7936)
// otherwise. Everything else is in the file: see [gate] in docs/livepeer.md.
//
// Exit codes: 0 stopped by a signal, 1 cannot listen, 2 wrong arguments.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"banmesh/internal/gate"
)

// version is set by the build.
var version = "unknown"

func main() {
	// A journal that restarts, and with it whoever reads the log, does not end the gate.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// run is main without the process.
func run(ctx context.Context, args []string, errs io.Writer) int {
	flags := flag.NewFlagSet("banmesh-gate", flag.ContinueOnError)
	flags.SetOutput(errs)
	listen := flags.String("listen", gate.DefaultAddress, "loopback `ADDRESS` where systemd gives no socket")
	showVersion := flags.Bool("version", false, "print the version")
	flags.Usage = func() {
		fmt.Fprintf(errs, "usage: banmesh-gate [-listen ADDRESS] [FILE]\n\nAnswers an orchestrator's -authWebhookUrl from the denied wallets in FILE (%s), which the agent writes.\n\n", gate.DefaultFile)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil, flags.NArg() > 1:
		if err == nil {
			fmt.Fprintln(errs, "banmesh-gate: error: at most one file")
		}
		return 2
	case *showVersion:
		fmt.Fprintln(errs, "banmesh-gate", version)
		return 0
	}
	file := gate.DefaultFile
	if flags.NArg() == 1 {
		file = flags.Arg(0)
	}
	log := slog.New(slog.NewTextHandler(errs, nil))
	socket, err := gate.Listen(*listen, activation.Files(true))
	if err != nil {
		fmt.Fprintf(errs, "banmesh-gate: error: %v\nbanmesh-gate: hint: -listen names another loopback address\n", err)
		return 1
	}
	service := gate.OpenService()
	defer service.Close()
	log.Info("wallet gate open", "version", version, "address", socket.Listener.Addr().String(), "inherited", socket.Inherited, "calls_left", len(socket.Calls), "file", file)
	if err := gate.New(log).Run(ctx, gate.Options{File: file, Socket: socket, Service: service}); err != nil {
		fmt.Fprintf(errs, "banmesh-gate: error: %v\n", err)
		return 1
	}
	return 0
}
