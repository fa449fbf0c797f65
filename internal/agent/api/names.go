package api

import (
	"net/http"
	"slices"
	"strings"

	"banmesh/internal/control"
	"banmesh/internal/ledger"
)

// Bounds of a list of names, which a shell asks for while a person waits: more than a
// person reads, and so few bans that looking them all up takes milliseconds.
const (
	maxNames     = 200
	maxNamedBans = 20_000
)

// names gives names of one kind that begin with a text, sorted, for a shell to complete:
// topics, peers, bans, allowed or lists. Of more than [maxNames] the first come.
func (s *Server) names(r *http.Request) (any, error) {
	kind, prefix := r.URL.Query().Get("kind"), r.URL.Query().Get("prefix")
	var list []string
	add := func(name string) {
		if strings.HasPrefix(name, prefix) {
			list = append(list, name)
		}
	}
	switch kind {
	case control.NamesTopics:
		for _, t := range s.o.Settings().Topics() {
			add(string(t.Topic))
		}
	case control.NamesPeers:
		for _, p := range s.o.Settings().Peers() {
			add(p.Name)
		}
	case control.NamesBans:
		if s.o.Ledger.Stats().Banned > maxNamedBans {
			break
		}
		for x := range s.o.Ledger.Bans(ledger.Filter{}) {
			add(x.Target.String())
		}
	case control.NamesAllowed:
		for _, x := range s.o.Ledger.Exemptions.List() {
			add(x.Target.String())
		}
	case control.NamesLists:
		for _, x := range s.o.Lists.List() {
			add(x.Name)
		}
	default:
		return nil, control.Refuse(control.CodeBad, "", "no names are of the kind %q", kind)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return append([]string{}, list[:min(len(list), maxNames)]...), nil
}
