// Command banmesh is every program of ours in one file: the agent's commands
// stand at its top, the broker's below `banmesh broker`. Called as agent or
// broker, by a link of that name, it is that program.
package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	agent "banmesh/cmd/agent/commands"
	broker "banmesh/cmd/broker/commands"
	"banmesh/internal/cli"
)

// version is set by the build.
var version = "unknown"

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	cli.Main(func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
		return run(ctx, name, args, in, out, errs)
	}, args)
}

// run is the process: called by a name, with arguments.
func run(ctx context.Context, called string, args []string, in io.Reader, out, errs io.Writer) int {
	p := cli.Program{Name: "banmesh", Version: version}
	switch called = strings.TrimPrefix(called, "banmesh-"); called {
	case "agent":
		p.Name = called
		return agent.Run(ctx, p, args, in, out, errs)
	case "broker":
		p.Name = called
		return broker.Run(ctx, p, args, in, out, errs)
	}
	if rest, ok := below(args, "broker"); ok {
		p.Name = "banmesh broker"
		return broker.Run(ctx, p, rest, in, out, errs)
	}
	return agent.Run(ctx, p, args, in, out, errs, &cobra.Command{
		Use: "broker", Short: "Offer a network of signed ban feeds to strangers (see `banmesh broker --help`)", Run: func(*cobra.Command, []string) {},
	})
}

// below gives the arguments of a program's command line where args name the
// program: as the first word, after `help`, or as the first word that a shell
// asks the completions of.
func below(args []string, program string) (rest []string, ok bool) {
	at := 0
	if len(args) > 1 && (args[0] == "help" || args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		at = 1
	}
	// While the program's name itself is typed, it is a word to complete.
	if len(args) <= at || args[at] != program || at == 1 && args[0] != "help" && len(args) == 2 {
		return nil, false
	}
	return append(append(rest, args[:at]...), args[at+1:]...), true
}
