package commands

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"banmesh/internal/cli"
)

// questions asks a person, or takes the proposed answers.
type questions struct {
	in       *bufio.Reader
	out      io.Writer
	terminal bool
	yes      bool
}

func newQuestions(c *cobra.Command, yes bool) *questions {
	q := &questions{in: bufio.NewReader(c.InOrStdin()), out: c.OutOrStdout(), yes: yes}
	if f, ok := c.InOrStdin().(*os.File); ok {
		q.terminal = term.IsTerminal(int(f.Fd()))
	}
	return q
}

// ask asks a question; without a terminal the answer is the proposed one.
func (q *questions) ask(text string, proposed bool) bool {
	if q.yes || !q.terminal {
		return proposed
	}
	choice := "[y/N]"
	if proposed {
		choice = "[Y/n]"
	}
	fmt.Fprintf(q.out, "%s %s ", cli.Wrap(q.out, 0, "   ", text), choice)
	line, _ := q.in.ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	case "n", "no":
		return false
	}
	return proposed
}

// line asks for one line.
func (q *questions) line(text string) string {
	fmt.Fprintf(q.out, "%s: ", cli.Wrap(q.out, 0, "   ", text))
	line, _ := q.in.ReadString('\n')
	return strings.TrimSpace(line)
}

// list asks for words.
func (q *questions) list(text string) []string {
	fmt.Fprintf(q.out, "%s: ", cli.Wrap(q.out, 0, "   ", text))
	line, _ := q.in.ReadString('\n')
	return strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' })
}
