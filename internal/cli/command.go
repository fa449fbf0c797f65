package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// NoOther refuses a word where one of the command's own commands should:
// it says which one was probably meant.
func NoOther(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("see `%s --help`", c.CommandPath())
	c.SuggestionsMinimumDistance = 2
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		hint = fmt.Sprintf("did you mean `%s %s`?", c.CommandPath(), like[0])
	}
	return &Error{Err: fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()), Code: ExitUsage, Hint: hint}
}
