package agent

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"banmesh/internal/agent/api"
	"banmesh/internal/detect/source"
)

// banner says in plain words how the node is set up, to whoever started it.
func (a *agent) banner(w io.Writer) {
	s := a.current()
	fmt.Fprintf(w, "banmesh agent %s: operator %s, node %s\n", a.o.Version, a.sharing.identity.Operator(), a.sharing.identity.Node())
	var detect, publish, accept []string
	for _, t := range s.Topics() {
		if t.Detect {
			detect = append(detect, string(t.Topic))
		}
		if t.Publish {
			publish = append(publish, string(t.Topic))
		}
		if t.Subscribe {
			from := t.Operators
			if n := a.sharing.Siblings(); n > 0 {
				from = append([]string{"the other nodes of this operator"}, from...)
			}
			accept = append(accept, fmt.Sprintf("%s (from %s)", t.Topic, orNobody(from)))
		}
	}
	d := a.detection.Status()
	var logs []string
	for _, x := range d.Sources {
		for _, l := range x.Logs {
			name := api.LogName(l.Log)
			if l.Kind == source.KindJournal {
				name = "the journal"
			}
			if !slices.Contains(logs, name) {
				logs = append(logs, name)
			}
		}
	}
	switch {
	case len(detect) == 0:
		fmt.Fprintln(w, "  watches    nothing: no topic is detected here")
	case len(logs) == 0:
		fmt.Fprintf(w, "  watches    for %s, but found no log to read\n", strings.Join(detect, ", "))
	default:
		fmt.Fprintf(w, "  watches    for %s in %s\n", strings.Join(detect, ", "), strings.Join(logs, "; "))
	}
	switch mode, why := a.enforcer.Enforcement(); mode {
	case "observe", "off":
		fmt.Fprintf(w, "  bans       nobody, only says whom it would ban: %s\n", why)
	default:
		fmt.Fprintf(w, "  bans       %s\n", a.enforcer.chosen().Where())
	}
	fmt.Fprintf(w, "  publishes  %s\n", orElse(publish, "nothing, until asked: `agent topics publish sshd`"))
	fmt.Fprintf(w, "  accepts    %s\n", orElse(accept, "nothing, until asked: `agent topics subscribe sshd`"))
	if a.sharing.broker != nil {
		fmt.Fprintf(w, "  broker     its own, on %s\n", a.sharing.Embedded())
	}
	for _, b := range a.sharing.brokers {
		fmt.Fprintf(w, "  broker     %s\n", b.URL)
	}
	if on := s.Config().Gate.Enabled; on != nil && *on {
		fmt.Fprintln(w, "  gate       banmesh-gate answers for it: `agent livepeer gate`")
	}
	fmt.Fprintf(w, "  ask it     `agent status`, `agent bans`, `agent explain ADDRESS`\n")
	if a.enforcer.fw != nil {
		fmt.Fprintln(w, "  stop it    Ctrl-C; bans stay in force until they end")
	} else {
		fmt.Fprintln(w, "  stop it    Ctrl-C; nothing stays behind but the state directory")
	}
}

// farewell says which bans stay in force.
func (a *agent) farewell(w io.Writer) {
	if a.enforcer.fw != nil {
		fmt.Fprintln(w, "stopped. "+a.enforcer.chosen().Stays())
		return
	}
	fmt.Fprintln(w, "stopped. Nothing stays behind but the state directory.")
}

func orNobody(list []string) string { return orElse(list, "nobody yet") }

func orElse(list []string, otherwise string) string {
	if len(list) == 0 {
		return otherwise
	}
	return strings.Join(list, ", ")
}
