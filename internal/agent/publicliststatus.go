package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/compat/lists"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

// List implements [api.PublicLists].
func (l *publicLists) List() []control.PublicList {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := []control.PublicList{}
	for _, name := range slices.Sorted(maps.Keys(l.states)) {
		list = append(list, l.states[name].describe(l.o.now()))
	}
	return list
}

func (s *listState) describe(now time.Time) control.PublicList {
	x := control.PublicList{
		Name: s.list.Name, File: s.list.File, URL: s.list.Fetch.URL, Topics: s.list.Topics, Rule: s.list.Rule.String(), Format: string(s.list.Read.Format),
		Fault: s.fault, Asked: s.asked,
	}
	if s.held != nil {
		h := s.held.HeldEdition
		x.Held = &h
	}
	c := s.taken
	if c == nil {
		return x
	}
	x.Taken, x.Confirmed, x.Sum, x.Format, x.Ends = c.Taken, c.Confirmed, c.Sum, string(c.Edition.Format), s.until
	if s.until.After(now) {
		x.Entries = c.Entries
	}
	t := c.Edition.Tally
	x.Junk, x.Wide, x.Never, x.Low, x.Repeated, x.Beyond = t.Junk, t.Wide, t.Never, t.Low, t.Repeated, t.Beyond
	for _, r := range c.Edition.Refused {
		x.Refused = append(x.Refused, control.ListRefusal(r))
	}
	return x
}

// Approve implements [api.PublicLists].
func (l *publicLists) Approve(ctx context.Context, name, sum string) (control.PublicList, error) {
	l.looking.Lock()
	defer l.looking.Unlock()
	s := l.states[name]
	switch {
	case s == nil:
		return control.PublicList{}, control.Refuse(control.CodeMissing, "see `agent lists`", "no list is named %.64q", name)
	case s.held == nil:
		return control.PublicList{}, control.Refuse(control.CodeRefused, "see `agent lists show "+name+"`", "no edition of the list %s waits", name)
	case s.held.Sum != sum:
		return control.PublicList{}, control.Refuse(control.CodeRefused, "look at the newer one: `agent lists show "+name+"`", "the list %s changed again meanwhile", name)
	}
	h := s.held
	change := lists.Change{Before: h.Before, After: h.After, Added: h.Added, Gone: h.Gone}
	if err := l.take(ctx, s, h.edition, h.confirmed, change); err != nil {
		return control.PublicList{}, err
	}
	l.o.log.InfoContext(ctx, "an edition of a list was approved", slog.String("list", name))
	l.o.note(history.Event{Kind: history.Hold, By: "a person", Count: h.After, Why: "approved an edition of " + string(s.list.Import)})
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.describe(l.o.now()), nil
}

// warnings gives the conditions of lists.
func (l *publicLists) warnings() (list []control.Warning) {
	now := l.o.now()
	for _, x := range l.List() {
		if x.Held != nil {
			list = append(list, api.ListHeld.Warn(fmt.Sprintf("the newest edition of the list %s waits: %s", x.Name, x.Held.Why), fmt.Sprintf("agent lists show %s; agent lists approve %s", x.Name, x.Name)))
		}
		switch {
		case x.Taken.IsZero() && x.Fault != "":
			list = append(list, api.ListFault.Warn(fmt.Sprintf("nothing of the list %s counts: %s", x.Name, x.Fault), mendList(&x)))
		case !x.Taken.IsZero() && !x.Ends.After(now):
			list = append(list, api.ListEnded.Warn(fmt.Sprintf("the list %s has ended at %s: nobody confirmed it since %s%s", x.Name, x.Ends.UTC().Format(time.RFC3339), x.Confirmed.UTC().Format(time.RFC3339), reasonOf(x.Fault)), mendList(&x)))
		case x.Fault != "":
			list = append(list, api.ListFault.Warn(fmt.Sprintf("no newer edition of the list %s: %s; the one of %s counts until %s", x.Name, x.Fault, x.Confirmed.UTC().Format(time.RFC3339), x.Ends.UTC().Format(time.RFC3339)), mendList(&x)))
		}
	}
	return list
}

func reasonOf(fault string) string {
	if fault == "" {
		return ""
	}
	return ": " + fault
}

// mendList says how a list comes again.
func mendList(x *control.PublicList) string {
	if x.File != "" {
		return "see that the agent's user may read " + x.File + ", and who writes it"
	}
	return "systemctl enable --now banmesh-fetch.timer; journalctl -u banmesh-fetch; agent fetch " + x.Name + " --now"
}
