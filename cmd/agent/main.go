// Command agent detects offenders on this machine, shares bans as signed feeds
// with those who opt in, and enforces the bans that its policy accepts.
// It is `banmesh` under the name that people type.
package main

import (
	"context"
	"io"
	"os"

	"banmesh/cmd/agent/commands"
	"banmesh/internal/cli"
)

// version is set by the build.
var version = "unknown"

func main() {
	p := cli.Program{Name: "agent", Version: version}
	cli.Main(func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
		return commands.Run(ctx, p, args, in, out, errs)
	}, os.Args[1:])
}
