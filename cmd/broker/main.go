// Command broker is the community broker: an MQTT server that offers a network
// of signed feeds to strangers, and needs no trust from them.
// It is `banmesh broker` under the name that people type.
package main

import (
	"context"
	"io"
	"os"

	"banmesh/cmd/broker/commands"
	"banmesh/internal/cli"
)

// version is set by the build.
var version = "unknown"

func main() {
	p := cli.Program{Name: "broker", Version: version}
	cli.Main(func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
		return commands.Run(ctx, p, args, in, out, errs)
	}, os.Args[1:])
}
