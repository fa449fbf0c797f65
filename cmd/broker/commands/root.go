// Package commands is the broker's commands, one file each.
package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/broker/retained"
	"banmesh/internal/broker/settings"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/strict"
)

// paths are where a broker lives.
type paths struct {
	config string // the configuration file
	socket string // control socket
}

const exitHelp = `
Exit codes: 0 done, 1 error, 2 wrong usage, 10 the broker is not running`

// Run runs one command line and gives its exit code. The first signal that ends
// the process ends ctx.
func Run(ctx context.Context, p cli.Program, args []string, in io.Reader, out, errs io.Writer) int {
	return p.Execute(ctx, newRootCommand(p), explain, args, in, out, errs)
}

// New gives the commands under a program's name, for manuals and completions.
func New(p cli.Program) *cobra.Command {
	root := newRootCommand(p)
	p.Rename(root)
	return root
}

func newRootCommand(program cli.Program) *cobra.Command {
	p := &paths{}
	var wide bool
	root := &cobra.Command{
		Use:   "broker",
		Short: "Offer a network of signed ban feeds to strangers, over MQTT",
		Long: `The broker carries the signed feeds of a network. It admits only what a feed's own
key signed, keeps the newest of it, and hands it to whoever subscribes. Agents check
every byte again, so nobody has to trust it.

  broker run                     serve on 127.0.0.1:1883, without any configuration
  broker init --network example  write a configuration for the internet
  broker check                   is the configuration sound?
  broker status                  how does it do?
` + exitHelp,
		Version:       program.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cli.NoOther,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("{{.DisplayName}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: fmt.Sprintf("see `%s --help`", c.CommandPath())}
	})
	f := root.PersistentFlags()
	f.StringVar(&p.config, "config", place("BANMESH_BROKER_CONFIG", "CONFIGURATION_DIRECTORY", "broker.toml", "/etc/banmesh-broker", userPath("XDG_CONFIG_HOME", ".config")), "configuration file")
	f.StringVar(&p.socket, "socket", place("BANMESH_BROKER_SOCKET", "RUNTIME_DIRECTORY", "broker.sock", "/run/banmesh-broker", userPath("XDG_STATE_HOME", ".local/state")), "control socket")
	root.PersistentFlags().BoolVar(&wide, "wide", false, "print lines whole, however wide the terminal is")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if wide {
			root.SetOut(cli.Wide(root.OutOrStdout()))
		}
	}
	root.AddCommand(
		newRunCommand(p), newInitCommand(p), newCheckCommand(p), newStatusCommand(p), newFeedsCommand(p),
		newClientsCommand(p), newKickCommand(p), newBanKeyCommand(p), newBackupCommand(p), newHashCommand(), newAdmitCommand(),
	)
	return root
}

// place gives the first of: an environment variable of ours, a file in one of
// systemd's directories, in the directory of root, in the directory of a user.
func place(ours, systemd, file, root, user string) string {
	if v := os.Getenv(ours); v != "" {
		return v
	}
	if v := os.Getenv(systemd); v != "" {
		return filepath.Join(strings.Split(v, ":")[0], file)
	}
	if os.Geteuid() == 0 {
		return filepath.Join(root, file)
	}
	return filepath.Join(user, file)
}

func userPath(variable, below string) string {
	if v := os.Getenv(variable); v != "" {
		return filepath.Join(v, "banmesh-broker")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, below, "banmesh-broker")
}

func (p *paths) client() *control.Client { return control.NewClient(p.socket) }

// read reads the configuration file; one that is not there is the default,
// unless it was named by hand.
func (p *paths) read(c *cobra.Command) (*settings.File, error) {
	f, err := p.named()
	if errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("config") {
		return settings.Default(), nil
	}
	return f, err
}

// named reads the configuration file, which has to be there.
func (p *paths) named() (*settings.File, error) {
	f, err := settings.Read(p.config)
	if errors.Is(err, fs.ErrNotExist) {
		err = cli.Hint(err, "`broker init` writes a configuration; --config names another one")
	}
	return f, err
}

// explain turns errors of the parts into errors with advice.
func explain(err error) error {
	if faults := cli.Joined(err); faults != nil {
		var all []error
		for _, e := range faults {
			all = append(all, explain(e))
		}
		return errors.Join(all...)
	}
	var e *cli.Error
	var r *control.RefusedError
	var f *strict.Fault
	switch {
	case err == nil || errors.As(err, &e):
		return err
	case errors.As(err, &f) && f.Hint != "":
		return &cli.Error{Err: err, Hint: f.Hint, Code: cli.ExitError}
	case errors.As(err, &r) && r.Hint != "":
		return cli.Hint(err, "%s", r.Hint)
	case errors.Is(err, control.ErrNotRunning):
		return &cli.Error{Err: errors.New("the broker is not running: nobody answers on its control socket"), Hint: "start it with `broker run`, or name its socket with --socket", Code: cli.ExitNotRunning}
	case errors.Is(err, control.ErrUnanswered):
		return cli.Hint(err, "`broker status` says what is true when it runs again; the command can be repeated")
	case errors.Is(err, control.ErrPermission):
		return cli.Hint(err, "run this as root or as the broker's user")
	case errors.Is(err, fs.ErrPermission):
		return cli.Hint(err, "run this as root or as the broker's user")
	case errors.Is(err, retained.ErrLocked):
		return cli.Hint(err, "`broker status` shows it")
	case errors.Is(err, retained.ErrCorrupt):
		return cli.Hint(err, "put a backup in its place, or move it away: agents publish their feeds again")
	case strings.HasPrefix(err.Error(), "unknown command"), strings.Contains(err.Error(), "arg(s)"):
		return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "see `broker --help`"}
	}
	return err
}
