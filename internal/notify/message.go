package notify

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/printable"
)

// A Message is one text for a receiver: the notices of a kind that came since
// the last one.
type Message struct {
	ID     string // the same in every attempt, so that a receiver can tell that it has it
	Kind   Kind
	At     time.Time
	Urgent bool
	Title  string
	Lines  []string
	// Link is the page that shows it, Buttons are pages that act after a question;
	// none where no page has an address.
	Link    string
	Buttons []Button
	Notices []Notice
	More    int // further notices, which are counted alone
}

// A Button is a page on which one person does one thing, within an hour.
type Button struct {
	Label string `json:"label"`
	URL   string `json:"url"`
}

// An Action is the thing that a button does.
type Action struct {
	// Do is one of the Do words.
	Do     string
	Topic  ban.Topic
	Target ban.Target
	Peer   string // an operator's name here
}

// The actions.
const (
	DoUnban    = "unban"    // lift bans of the target and forbid them for a while
	DoWithdraw = "withdraw" // withdraw this node's claim as a mistake
	DoApprove  = "approve"  // let in the claims of a peer that wait
	DoReject   = "reject"   // refuse them
)

// A Page gives addresses on the node's page. Both functions give "" where there
// is none.
type Page struct {
	// Show gives the page that shows a target, or the overview for the zero one.
	Show func(k Kind, target ban.Target) string
	// Act gives a page on which one person can do a thing once, within an hour.
	Act func(Action) string
}

const (
	// shownNotices bounds the notices in the text of a message.
	shownNotices = 10
	// maxButtons is as many as ntfy takes.
	maxButtons = 3
)

// message makes the message of the notices of a kind that wait.
func (p *pending) message(k Kind, e *Entry, page Page, now time.Time) Message {
	m := Message{ID: p.ID, Kind: k, At: now, Urgent: slices.Contains(e.Urgent, k), Notices: p.Notices, More: p.More, Title: title(k, p)}
	if e.Label != "" {
		m.Title = clean(e.Label, 64) + ": " + m.Title
	} else {
		m.Title = "Banmesh: " + m.Title
	}
	for i := range p.Notices {
		if i == shownNotices {
			break
		}
		n := &p.Notices[i]
		m.Lines = append(m.Lines, n.lines(e.Details, now)...)
	}
	if n := p.size() - p.Behind.size() - min(len(p.Notices), shownNotices); n > 0 {
		m.Lines = append(m.Lines, fmt.Sprintf("and %d more%s", n, byWhom(p.By)))
	}
	m.pages(page)
	return m
}

// lines gives the text of a notice.
func (n *Notice) lines(details bool, now time.Time) (list []string) {
	text := n.Text
	if age := now.Sub(n.At); age > 10*time.Minute && n.Kind != Receipt {
		text = n.At.Local().Format("2006-01-02 15:04") + ": " + text
	}
	list = append(list, strings.Split(text, "\n")...)
	if details && n.Detail != "" {
		list = append(list, "  "+n.Detail)
	}
	if n.Mend != "" {
		list = append(list, "  mend: "+n.Mend)
	}
	return list
}

// byWhom lists the operators of notices, most first.
func byWhom(by map[string]int) string {
	if len(by) == 0 {
		return ""
	}
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return cmp.Or(by[b]-by[a], strings.Compare(a, b)) })
	var parts []string
	for _, n := range names[:min(len(names), 5)] {
		parts = append(parts, fmt.Sprintf("%s %d", n, by[n]))
	}
	return "; in all by " + strings.Join(parts, ", ")
}

// title names the notices in a few words.
func title(k Kind, p *pending) string {
	n := p.size() - p.Behind.size()
	over := !slices.ContainsFunc(p.Notices, func(n Notice) bool { return !n.Over })
	if over && len(p.Notices) > 0 && n == len(p.Notices) {
		return map[bool]string{true: "one fault is over", false: fmt.Sprintf("%d faults are over", n)}[n == 1]
	}
	words := map[Kind][2]string{
		Ban:        {"a ban by peers", "bans by peers"},
		Hold:       {"claims of a peer wait for you", "holds wait for you"},
		Quarantine: {"an operator is quarantined", "quarantines"},
		Mistake:    {"a peer calls a ban a mistake", "bans that peers call a mistake"},
		Ending:     {"something ends soon", "things end soon"},
		Silent:     {"a log is silent or cannot be read", "logs are silent or cannot be read"},
		Unbitten:   {"a ban does not bite", "bans do not bite"},
		Fault:      {"something is wrong with this node", "things are wrong with this node"},
		Receipt:    {"the week", "weeks"},
		Test:       {"a test", "tests"},
	}[k]
	if n == 1 {
		return words[0]
	}
	return fmt.Sprintf("%d %s", n, words[1])
}

// pages adds link and buttons. A message of several things has no buttons that
// could be taken for those of another one.
func (m *Message) pages(page Page) {
	if page.Show != nil {
		target := ban.Target{}
		if len(m.Notices) == 1 {
			target = m.Notices[0].Target
		}
		m.Link = page.Show(m.Kind, target)
	}
	if page.Act == nil || len(m.Notices) != 1 || m.More > 0 {
		return
	}
	n := m.Notices[0]
	var who string
	if len(n.Peers) == 1 {
		who = n.Peers[0]
	}
	add := func(label string, a Action) {
		if u := page.Act(a); u != "" && len(m.Buttons) < maxButtons {
			m.Buttons = append(m.Buttons, Button{label, u})
		}
	}
	switch {
	case m.Kind == Ban && !n.Target.IsZero():
		add("Unban", Action{Do: DoUnban, Topic: n.Topic, Target: n.Target})
	case m.Kind == Mistake && !n.Target.IsZero():
		add("Withdraw", Action{Do: DoWithdraw, Topic: n.Topic, Target: n.Target})
	case m.Kind == Hold && who != "":
		add("Approve", Action{Do: DoApprove, Topic: n.Topic, Peer: who})
		add("Reject", Action{Do: DoReject, Topic: n.Topic, Peer: who})
	}
}

// Text gives the whole message without its title, for receivers of plain text.
func (m Message) Text() string { return strings.Join(m.Lines, "\n") }

// WithPages gives [Message.Text] and the pages' addresses, for receivers that
// know no buttons.
func (m Message) WithPages() string {
	s := m.Text()
	if m.Link != "" {
		s += "\n\n" + m.Link
	}
	for _, b := range m.Buttons {
		s += "\n" + b.Label + ": " + b.URL
	}
	return s
}

// clean makes a text fit to be shown, and cuts it to so many bytes. Line ends
// stay.
func clean(s string, most int) string { return cut(printable.Lines(s), most) }

// cut shortens a text at the begin of a character.
func cut(s string, most int) string {
	const dots = "…"
	if len(s) <= most {
		return s
	}
	if most < len(dots) {
		return ""
	}
	end := most - len(dots)
	for end > 0 && s[end]&0xc0 == 0x80 {
		end--
	}
	return s[:end] + dots
}

// newID gives a message its identity: 128 random bits, in hexadecimal.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
