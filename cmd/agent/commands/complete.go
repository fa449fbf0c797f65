package commands

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"banmesh/internal/control"
)

// completeWithin bounds a completion: a shell waits for it with every key.
const completeWithin = 400 * time.Millisecond

// completed are the commands whose arguments are names, by their path below the program:
// the kind of the first argument, and whether more of it may follow.
var completed = map[string]struct {
	kind string
	many bool
}{
	"topics subscribe": {kind: control.NamesTopics}, "topics unsubscribe": {kind: control.NamesTopics},
	"topics publish": {kind: control.NamesTopics}, "topics unpublish": {kind: control.NamesTopics},
	"topics detect": {kind: control.NamesTopics}, "topics ignore": {kind: control.NamesTopics},
	"topics publish-definition": {kind: control.NamesTopics}, "topics show": {kind: control.NamesTopics},
	"simulate on": {kind: control.NamesTopics}, "simulate off": {kind: control.NamesTopics},
	"peers show": {kind: control.NamesPeers}, "peers remove": {kind: control.NamesPeers}, "peers card": {kind: control.NamesPeers},
	"peers follow": {kind: control.NamesPeers}, "peers unfollow": {kind: control.NamesPeers}, "peers succeed": {kind: control.NamesPeers},
	"hold approve": {kind: control.NamesPeers}, "hold reject": {kind: control.NamesPeers}, "undo": {kind: control.NamesPeers},
	"unban": {control.NamesBans, true}, "withdraw": {control.NamesBans, true}, "explain": {control.NamesBans, true}, "report": {kind: control.NamesBans},
	"denylist remove": {control.NamesBans, true}, "allow remove": {control.NamesAllowed, true},
	"lists approve": {kind: control.NamesLists}, "lists show": {kind: control.NamesLists}, "lists remove": {kind: control.NamesLists},
}

// completedFlags are the flags whose values are names.
var completedFlags = map[string]string{"topic": control.NamesTopics, "trust": control.NamesPeers}

// completeNames lets a shell complete the names that the running agent knows. Where none
// answers in time there are none, and nothing is said.
func completeNames(root *cobra.Command, p *paths) {
	for _, c := range root.Commands() {
		completeNames(c, p)
	}
	_, path, _ := strings.Cut(root.CommandPath(), " ")
	if x, ok := completed[path]; ok {
		root.ValidArgsFunction = func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 && !x.many {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			list := slices.DeleteFunc(p.names(c.Context(), x.kind, typed), func(s string) bool { return slices.Contains(args, s) })
			if path == "topics publish" || path == "topics publish-definition" {
				return list, cobra.ShellCompDirectiveDefault // a file of a definition, too
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		}
	}
	for name, kind := range completedFlags {
		if root.Flags().Lookup(name) != nil {
			_ = root.RegisterFlagCompletionFunc(name, func(c *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
				return p.names(c.Context(), kind, typed), cobra.ShellCompDirectiveNoFileComp
			}) // fails only where it is done twice
		}
	}
}

// names asks the running agent; topics are known without one.
func (p *paths) names(ctx context.Context, kind, typed string) (list []string) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	if p.client().Get(ctx, "/v1/names", url.Values{"kind": {kind}, "prefix": {typed}}, &list) == nil || kind != control.NamesTopics {
		return list
	}
	definitions, err := loadTopics(p)
	if err != nil {
		return nil
	}
	for _, d := range definitions {
		if strings.HasPrefix(string(d.Name), typed) {
			list = append(list, string(d.Name))
		}
	}
	slices.Sort(list)
	return list
}
