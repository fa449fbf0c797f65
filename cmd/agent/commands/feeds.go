package commands

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/federation"
)

func newFeedsCommand(p *paths) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "feeds", Short: "Show every feed that this node writes or reads, and how fresh it is",
		Example: "  agent feeds\n  agent feeds --json | jq '.[] | select(.status != \"synced\")'",
		Long: `Show every feed: what this node writes, and what it reads of the operators that its policy names.

  synced        the reader has exactly what the author says, as of the time shown, "ahead" where the author's clock is
  cut-off       no broker answers: what was said since the time shown is not known, or not published
  unanswered    this node's own: no broker has acknowledged its newest messages for seconds
  joining       pieces are on their way
  unseen        no broker has anything of it
  stale         nothing was heard within the author's own limit; its bans stay until they end
  withheld      the author says that there is more, and no broker hands it out
  equivocating  its key has signed two different stories; nothing more of them is believed
  too-large     it is beyond the limits
  revoked       the operator has revoked the node
  uncertified   the operator's card does not certify the node, or no longer
  writing       this node's own, published
  private       this node's own, not published
  cloned        this node's own: another machine writes with its key
` + cli.ExitHelp,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var list []control.Feed
			if err := p.client().Get(c.Context(), "/v1/feeds", nil, &list); err != nil {
				return err
			}
			slices.SortFunc(list, func(a, b control.Feed) int {
				return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Operator, b.Operator), cmp.Compare(a.Node, b.Node))
			})
			if asJSON {
				return cli.JSON(c.OutOrStdout(), list)
			}
			return printFeeds(c.OutOrStdout(), list, time.Now())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printFeeds(w io.Writer, list []control.Feed, now time.Time) error {
	if len(list) == 0 {
		fmt.Fprintln(w, "this node writes no feed and reads none: see `agent topics` and `agent peers`")
		return nil
	}
	t := cli.NewTable(w, "TOPIC", "OPERATOR", "STATUS", "AS OF", "CLAIMS", "BATCH", "SIZE", "NODE")
	t.Cut("OPERATOR", "TOPIC")
	for _, f := range list {
		name, heard := f.Name, "never"
		switch {
		case f.Own:
			name = "this node"
		case name == "":
			name = f.Operator
		}
		switch {
		case f.Issued.After(now):
			heard = cli.Short(f.Issued.Sub(now)) + " ahead"
		case !f.Issued.IsZero():
			heard = cli.Short(now.Sub(f.Issued)) + " ago"
		}
		batch := fmt.Sprint(f.Batch)
		if f.Newest > f.Batch {
			batch = fmt.Sprintf("%d of %d", f.Batch, f.Newest)
		}
		t.Row(string(f.Topic), name, f.Status, heard, fmt.Sprint(f.Claims), batch, size(f.Bytes), f.Node)
		t.Paint(2, feedColour(f.Status))
	}
	return t.Flush()
}

// feedColour says how well a feed does.
func feedColour(status string) cli.Colour {
	switch status {
	case federation.StatusSynced, "writing", "private":
		return cli.Good
	case federation.StatusJoining, federation.StatusUnseen, federation.StatusStale, federation.StatusCutOff, federation.StatusUnanswered:
		return cli.Doubt
	}
	return cli.Bad
}

// size says bytes as a person would.
func size(n int) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
