package commands

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// confirmed sends a request that may change more than a person expects. Where
// the agent asks first, the person is asked, and the request sent again with
// yes. Without a terminal nobody can be asked: that is a refusal.
func confirmed(c *cobra.Command, yes bool, send func(yes bool) error) error {
	err := send(yes)
	r, ok := errors.AsType[*control.RefusedError](err)
	if !ok || r.Code != control.CodeAsk {
		return err
	}
	if err := ask(c, r.Text); err != nil {
		return err
	}
	return send(true)
}

// ask asks a person on the terminal.
func ask(c *cobra.Command, text string) error {
	in, terminal := c.InOrStdin(), false
	if f, ok := in.(*os.File); ok {
		terminal = term.IsTerminal(int(f.Fd()))
	}
	return answer(c.ErrOrStderr(), in, terminal, text)
}

// answer prints a question and reads the answer; nil is yes.
func answer(out io.Writer, in io.Reader, terminal bool, text string) error {
	no := &cli.Error{Err: fmt.Errorf("not done: %s", text), Hint: "--yes does it without a question", Code: cli.ExitPartly}
	if !terminal {
		return no
	}
	fmt.Fprintf(out, "%s. Go on? [y/N] ", cli.Printable(text))
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(out)
		return no
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	no.Hint = ""
	return no
}

// yesFlag adds --yes to a command.
func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "do it without a question, however many bans it lifts")
}
