package commands

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/cli"
	"banmesh/internal/neverban"
)

// namesDropIn is the drop-in file of the host names that `agent allow add` was given.
const namesDropIn = "allow"

// allowName makes a host name an entry of the never-ban list: whichever addresses it
// has, as the agent looks it up again and again.
func allowName(c *cobra.Command, p *paths, host, comment string, seconds int64, yes bool) error {
	host, err := neverban.ParseName(host)
	if err != nil {
		return err
	}
	entry := map[string]any{"target": host}
	if comment != "" {
		entry["comment"] = comment
	}
	until := "until you remove it"
	if seconds > 0 {
		end := time.Now().Add(time.Duration(seconds) * time.Second).UTC().Truncate(time.Second)
		entry["until"], until = end.Format(time.RFC3339), "until "+clock(end)
	}
	written, err := p.edit(namesDropIn, func(tree map[string]any) error {
		list := append(withoutName(tree, host), entry)
		if len(list) > neverban.MaxNames {
			return cli.Hint(fmt.Errorf("more than %d names", neverban.MaxNames), "agent allow remove NAME")
		}
		tree["never_ban"] = list
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s is never banned here %s, whichever addresses it has\n", host, until)
	return written.takeOver(c, yes)
}

// disallowName ends such an entry. It says whether there was one.
func disallowName(c *cobra.Command, p *paths, host string) error {
	host, err := neverban.ParseName(host)
	if err != nil {
		return err
	}
	written, err := p.edit(namesDropIn, func(tree map[string]any) error {
		before, _ := tree["never_ban"].([]any)
		list := withoutName(tree, host)
		if len(list) == len(before) {
			return cli.Hint(fmt.Errorf("%s is no name that `agent allow add` was given", host), "a name in agent.toml is removed there; agent allow list")
		}
		if tree["never_ban"] = list; len(list) == 0 {
			delete(tree, "never_ban")
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s is no longer exempt\n", host)
	return written.takeOver(c, true)
}

// withoutName gives the entries of a drop-in file but those of a name.
func withoutName(tree map[string]any, host string) (list []any) {
	all, _ := tree["never_ban"].([]any)
	for _, x := range all {
		if entry, ok := x.(map[string]any); !ok || entry["target"] != host {
			list = append(list, x)
		}
	}
	return list
}
