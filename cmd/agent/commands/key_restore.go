package commands

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

// thisMachine is the one that the keys are tied to.
func thisMachine() string { return keys.Machine("/", os.Getenv) }

// otherMachine is the way out where the keys are another machine's.
func otherMachine(err error) error {
	return cli.Hint(err, "this is a copy of a machine that goes on: `agent key node rotate` gives it a key of its own; it takes that machine's place: `agent key node move`")
}

func newKeyRestoreCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "restore DIR", Short: "Put the keys and the card of a backup back; stop the agent first",
		Example: "  agent key restore /media/stick/banmesh-keys",
		Long: `Put the keys and the card of ` + "`agent key backup`" + ` back. The whole copy is looked at before anything is written, and
what stands in its place is kept under another name. This machine takes the place of the one that the copy is
of, which must not write with these keys any more.
` + cli.ExitHelp,
		Args: exactly(1, "the directory of a backup"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := p.stopped(c); err != nil {
				return err
			}
			r, err := keys.Restore(p.state, args[0], thisMachine())
			if err != nil {
				return keyAdvice(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "in %s: %s\n", p.state, strings.Join(r.Files, ", "))
			if len(r.Kept) > 0 {
				fmt.Fprintf(c.OutOrStdout(), "kept what was there: %s\n", strings.Join(r.Kept, ", "))
			}
			fmt.Fprintf(c.OutOrStdout(), "this machine is node %s of operator %s (%s) from its next start on\n", r.Node, r.Operator, wire.SpokenFingerprint(r.Operator))
			fmt.Fprintln(c.OutOrStdout(), "that is a move: the machine that the copy is of must not run with these keys any more")
			return nil
		},
	}
}

func newKeyNodeMoveCommand(p *paths) *cobra.Command {
	return &cobra.Command{
		Use: "move", Short: "Say that this machine takes the place of the one that its keys are of",
		Example: "  agent key node move",
		Long: `Say that this machine takes the place of the one that its keys are of: a disk that was moved, or a restored
machine with another machine-id. The other machine must not write with these keys any more. For a copy of a
machine that goes on, ` + "`agent key node rotate`" + ` is the way.
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := p.stopped(c); err != nil {
				return err
			}
			if err := keys.Move(p.state, thisMachine()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "the keys are this machine's; no other must write with them")
			return err
		},
	}
}

// stopped fails while an agent runs.
func (p *paths) stopped(c *cobra.Command) error {
	err := p.client().Get(c.Context(), "/v1/status", nil, nil)
	if errors.Is(err, control.ErrNotRunning) {
		return nil
	}
	return cli.Hint(errors.Join(errors.New("the agent runs with the keys that are here"), err), "systemctl stop banmesh-agent, or end `agent run`")
}
