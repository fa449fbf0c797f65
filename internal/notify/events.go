package notify

import (
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/history"
)

// eventKinds are the kinds of events that make notices of a kind.
var eventKinds = map[Kind][]history.Kind{
	Ban:        {history.Ban},
	Hold:       {history.Hold},
	Quarantine: {history.Quarantine},
	Mistake:    {history.Withdraw, history.Dispute},
}

// wanted gives the kinds of events that any of the entries needs.
func wanted(entries []Entry) (list []history.Kind) {
	for kind, events := range eventKinds {
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.Wants(kind) }) {
			list = append(list, events...)
		}
	}
	slices.Sort(list)
	return list
}

// ofEvent makes the notice of an event, false where it is nobody's news: the
// decisions of a person at this node, and mistakes that do not concern it.
// concerns says whether this node claims a target, or has banned it.
func ofEvent(e *history.Event, concerns func(ban.Topic, ban.Target) bool) (Notice, bool) {
	n := Notice{At: e.At, Topic: e.Topic, Target: e.Target, Peers: e.Peers, Until: e.Until, Count: e.Count, Detail: detail(e)}
	// Those that a peer caused name it as who did it; a person's name the person.
	byPeer := len(e.Peers) == 1 && e.By == e.Peers[0]
	switch {
	case e.Kind == history.Ban && e.By == "peers" && len(e.Peers) > 0:
		n.Kind = Ban
		n.Text = fmt.Sprintf("%s is banned in %s", e.Target, e.Topic)
		if !e.Until.IsZero() {
			n.Text += " until " + e.Until.Local().Format("2006-01-02 15:04")
		}
		n.Text += ", by the word of " + names(e.Peers)
		n.Mend = fmt.Sprintf("agent explain %s", e.Target)
	case e.Kind == history.Hold && byPeer:
		n.Kind = Hold
		n.Text = fmt.Sprintf("claims of %s in %s wait: %s", names(e.Peers), e.Topic, e.Why)
		n.Mend = fmt.Sprintf("agent hold list; agent hold approve %s --topic %s --for 6h, or agent hold reject %s --topic %s", e.By, e.Topic, e.By, e.Topic)
	case e.Kind == history.Quarantine && byPeer:
		n.Kind = Quarantine
		n.Text = fmt.Sprintf("%s is quarantined, and its claims count for nothing: %s", names(e.Peers), e.Why)
		n.Mend = fmt.Sprintf("agent peers show %s; agent undo %s --release", e.By, e.By)
	case (e.Kind == history.Withdraw || e.Kind == history.Dispute) && byPeer && concerns(e.Topic, e.Target):
		n.Kind = Mistake
		n.Text = fmt.Sprintf("%s withdrew its claim of %s in %s as a mistake", names(e.Peers), e.Target, e.Topic)
		if e.Kind == history.Dispute {
			n.Text = fmt.Sprintf("%s says that %s should not be banned in %s", names(e.Peers), e.Target, e.Topic)
		}
		n.Mend = fmt.Sprintf("agent explain %s; agent withdraw %s --reason mistake, if the peer is right", e.Target, e.Target)
	default:
		return n, false
	}
	n.bound()
	return n, true
}

// detail is the part of an event that may hold users' and hosts' names.
func detail(e *history.Event) string {
	var parts []string
	if e.Kind == history.Ban && e.Why != "" {
		parts = append(parts, e.Why)
	}
	if e.Source != "" {
		parts = append(parts, e.Source)
	}
	if e.Sample != "" {
		parts = append(parts, e.Sample)
	}
	return strings.Join(parts, ": ")
}

func names(list []string) string {
	if n := len(list); n > 3 {
		return fmt.Sprintf("%s and %d others", strings.Join(list[:3], ", "), n-3)
	}
	return strings.Join(list, ", ")
}
