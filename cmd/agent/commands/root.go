// Package commands is the agent's commands, one file each: flags, words and exit
// codes, no decisions.
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
	"syscall"

	"github.com/spf13/cobra"

	"banmesh/internal/agent"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/firewall"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/strict"
)

// paths are where an agent lives: flags, then the environment (systemd's own
// variables among it), then the usual places of root or of a user.
type paths struct {
	config string // directory with agent.toml and conf.d/
	state  string // directory with agent.db, keys and snapshots
	socket string // control socket
}

// Run runs one command line and gives its exit code. The first signal that ends
// the process ends ctx. Others are commands that the program has beside the
// agent's.
func Run(ctx context.Context, p cli.Program, args []string, in io.Reader, out, errs io.Writer, others ...*cobra.Command) int {
	root := newRootCommand(p)
	root.AddCommand(others...)
	return p.Execute(ctx, root, explain, args, in, out, errs)
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
		Use:   "agent",
		Short: "Find attackers on this machine, share bans with peers that you choose, and enforce them",
		Long: `The agent finds attackers in this machine's logs, bans them in the kernel, publishes
signed bans on topics that you opt into, and accepts bans from operators that you trust.

  agent run                      start a node; nothing is published or accepted until you ask
  agent topics subscribe sshd    accept bans of operators that you trust
  agent topics publish sshd      share the bans that this node makes
  agent peers trust alice ID     trust an operator
  agent explain 203.0.113.7      why is this address banned, or not?
` + cli.ExitHelp,
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
	at := placesOf(os.Geteuid(), systemSocket)
	f := root.PersistentFlags()
	f.StringVar(&p.config, "config-dir", at.config, "directory of the configuration")
	f.StringVar(&p.state, "state-dir", at.state, "directory of keys and state")
	f.StringVar(&p.socket, "socket", at.socket, "control socket")
	root.PersistentFlags().BoolVar(&wide, "wide", false, "print lines whole, however wide the terminal is")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		if wide {
			root.SetOut(cli.Wide(root.OutOrStdout()))
		}
	}
	root.AddCommand(commands(p)...)
	completeNames(root, p)
	sayExitCodes(root)
	return root
}

// sayExitCodes ends every command's help with its exit codes.
func sayExitCodes(c *cobra.Command) {
	for _, sub := range c.Commands() {
		sayExitCodes(sub)
	}
	if c.Long == "" {
		c.Long = c.Short + ".\n"
	}
	if !strings.Contains(c.Long, "Exit codes") {
		c.Long = strings.TrimRight(c.Long, "\n") + "\n" + cli.ExitHelp
	}
}

// systemSocket is where the agent of the machine answers.
const systemSocket = "/run/banmesh/agent.sock"

// placesOf gives the places for a user. One who is not root has an agent of
// their own, unless there is none and the machine has one: then the commands
// are meant for that, and fail for the lack of privileges instead of writing a
// configuration that nobody reads.
func placesOf(uid int, system string) (p paths) {
	config, state := userPath("XDG_CONFIG_HOME", ".config"), userPath("XDG_STATE_HOME", ".local/state")
	if uid == 0 || !there(state) && there(system) {
		config, state = "/etc/banmesh", "/var/lib/banmesh"
	} else {
		system = filepath.Join(state, "agent.sock")
	}
	p.config = place("BANMESH_CONFIG_DIR", "CONFIGURATION_DIRECTORY", config)
	p.state = place("BANMESH_STATE_DIR", "STATE_DIRECTORY", state)
	if dir := os.Getenv("RUNTIME_DIRECTORY"); dir != "" && uid != 0 {
		// The runtime directory of a service is where root's commands look for
		// its socket.
		system = filepath.Join(strings.Split(dir, ":")[0], "agent.sock")
	}
	p.socket = place("BANMESH_SOCKET", "", system)
	return p
}

// there says whether something is at a path, even if this user may not see it.
func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || errors.Is(err, fs.ErrPermission)
}

// place gives the first of: an environment variable of ours, one of systemd's,
// the usual place.
func place(ours, systemd, usual string) string {
	if v := os.Getenv(ours); v != "" {
		return v
	}
	if v := os.Getenv(systemd); systemd != "" && v != "" {
		return strings.Split(v, ":")[0]
	}
	return usual
}

func userPath(variable, below string) string {
	if v := os.Getenv(variable); v != "" {
		return filepath.Join(v, "banmesh")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, below, "banmesh")
}

func (p *paths) client() *control.Client { return control.NewClient(p.socket) }

// explain turns errors of the parts into errors with advice.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if faults := cli.Joined(err); faults != nil {
		var all []error
		for _, e := range faults {
			all = append(all, explain(e))
		}
		return errors.Join(all...)
	}
	if _, ok := errors.AsType[*cli.Error](err); ok {
		return err
	}
	if f, ok := errors.AsType[*strict.Fault](err); ok && f.Hint != "" {
		return &cli.Error{Err: err, Hint: f.Hint, Code: cli.ExitError}
	}
	if r, ok := errors.AsType[*control.RefusedError](err); ok {
		return &cli.Error{Err: err, Hint: r.Hint, Code: cli.ExitError}
	}
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return &cli.Error{Err: err, Code: cli.ExitNotRunning, Hint: "start it with `agent run`, or `systemctl start banmesh-agent`"}
	case errors.Is(err, control.ErrUnanswered):
		return cli.Hint(err, "`agent status` and `agent explain TARGET` say what is true when it runs again; the command can be repeated")
	case errors.Is(err, control.ErrPermission):
		return cli.Hint(err, "use sudo, or join the group that owns the socket")
	case errors.Is(err, detect.ErrState):
		return cli.Hint(err, "move the file away and start again: bans stay, logs are read from their last findtime on, and offenders are counted anew")
	case errors.Is(err, keys.ErrOtherMachine):
		return otherMachine(err)
	case errors.Is(err, keys.ErrMachineFile):
		return cli.Hint(err, "`agent key node move` says that the keys are this machine's, where no other writes with them")
	case errors.Is(err, keys.ErrKeyMode):
		return cli.Hint(err, "chmod 600 the file; if somebody else may have read it, `agent key node rotate`")
	case errors.Is(err, keys.ErrKeyFile):
		return cli.Hint(err, "`agent key restore DIR` puts the copy of `agent key backup` in its place; without one, move it away and `agent key node request`")
	case errors.Is(err, keys.ErrCard):
		return cli.Hint(err, "`agent key restore DIR` puts the copy of `agent key backup` back; or move the file away and `agent key node install` the card that another node of the operator prints with `agent key card --text`")
	case errors.Is(err, fs.ErrPermission):
		return cli.Hint(err, "%s", permissionHint(err))
	case errors.Is(err, store.ErrLocked):
		return cli.Hint(err, "stop the other agent, or use another --state-dir")
	case errors.Is(err, store.ErrCorrupt) && errors.Is(err, agent.ErrEmbeddedBroker):
		return cli.Hint(err, "move the file away and start again: what it retained is published again by this node, and by others when they connect")
	case errors.Is(err, store.ErrCorrupt):
		return cli.Hint(err, "move the file away and start again: bans in the kernel stay, peers' bans come back from the broker, and this node's own feed begins a new epoch")
	case errors.Is(err, firewall.ErrBusy):
		return cli.Hint(err, "another agent enforces on this machine: stop it, or let this one only watch with `mode = \"off\"` in [firewall]")
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "accepts "), strings.HasPrefix(err.Error(), "requires "):
		return &cli.Error{Err: err, Code: cli.ExitUsage, Hint: "see `agent --help`"}
	}
	return err
}

// permissionHint names the command that gives a file to whom its directory
// belongs to: files that root left in a service's state directory.
func permissionHint(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		file, dir := ownerOf(p.Path), ownerOf(filepath.Dir(p.Path))
		if file == 0 && dir > 0 {
			return fmt.Sprintf("sudo chown --reference=%s %s gives it to the owner of its directory, as the rest of it", filepath.Dir(p.Path), p.Path)
		}
	}
	return "use sudo; the service itself runs as the user banmesh, who has to be able to read what its configuration names"
}

// ownerOf gives a file's owner, -1 where it cannot be seen.
func ownerOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Uid)
	}
	return -1
}

// group is a command that only holds others; an unknown one is a mistake.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: cli.NoOther,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(subs...)
	return c
}
