package cli

import (
	"fmt"
	"slices"
	"strings"

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
		// One that was typed in part comes before one that is as short as it.
		if i := slices.IndexFunc(like, func(name string) bool { return strings.HasPrefix(name, args[0]) }); i > 0 {
			like = like[i:]
		}
		hint = fmt.Sprintf("did you mean `%s %s`?", c.CommandPath(), like[0])
	}
	return &Error{Err: fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()), Code: ExitUsage, Hint: hint}
}
