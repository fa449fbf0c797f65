package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Program is how one program of ours was called.
type Program struct {
	Name    string // as typed: "agent", "banmesh", "banmesh broker"
	Version string // of the build
}

// Main calls run with a context that the first signal ends; the second signal
// kills. It does not return.
func Main(run func(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int, args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { signal.Reset(syscall.SIGINT, syscall.SIGTERM) })
	code := run(ctx, args, os.Stdin, Terminal(os.Stdout), Terminal(os.Stderr))
	stop()
	os.Exit(code)
}

// typed is a command line in a text: at the start of an indented line or of
// code, with or without sudo.
var typed = regexp.MustCompile("(?m)(^[ \t]+|`)(sudo )?([a-z]+) ([a-z][a-z-]*|--[a-z-]+)")

// Rename gives a tree of commands the name that it was called by, in its usage
// and in the command lines of its help. The function it returns does the same
// to a text that is printed later, such as a hint.
func (p Program) Rename(root *cobra.Command) func(string) string {
	was := root.Name()
	if p.Name == "" || p.Name == was {
		return func(s string) string { return s }
	}
	verbs := map[string]bool{"--help": true, "help": true, "completion": true}
	for _, c := range root.Commands() {
		verbs[c.Name()] = true
	}
	rename := func(s string) string {
		return typed.ReplaceAllStringFunc(s, func(line string) string {
			m := typed.FindStringSubmatch(line)
			if m[3] != was || !verbs[m[4]] {
				return line
			}
			return m[1] + m[2] + p.Name + " " + m[4]
		})
	}
	first, _, _ := strings.Cut(p.Name, " ")
	root.Use = first
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: p.Name}
	walk(root, func(c *cobra.Command) {
		c.Short, c.Long, c.Example = rename(c.Short), rename(c.Long), rename(c.Example)
	})
	return rename
}

func walk(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		walk(sub, do)
	}
}

// Execute runs a tree of commands under the program's name, prints its error
// as explain words it, and gives the exit code.
func (p Program) Execute(ctx context.Context, root *cobra.Command, explain func(error) error, args []string, in io.Reader, out, errs io.Writer) int {
	rename := p.Rename(root)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	return report(errs, p.Name, explain(root.ExecuteContext(ctx)), rename)
}
