package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

// week is the state of the weekly receipt.
type week struct {
	Next time.Time `json:"next"` // when it is sent
	// Began and Record are when the week began and each operator's counts then.
	Began  time.Time             `json:"began"`
	Record map[string]peerRecord `json:"record"`
}

// peerRecord are counts of an operator that only grow.
type peerRecord struct {
	Met       int `json:"met"`
	Overruled int `json:"overruled"`
}

// receiptHour is when receipts are sent, on Mondays by the clock on the wall.
const receiptHour = 9

// nextReceipt gives the first Monday at nine behind a time, by its time zone.
func nextReceipt(t time.Time) time.Time {
	days := (int(time.Monday) - int(t.Weekday()) + 7) % 7
	at := time.Date(t.Year(), t.Month(), t.Day()+days, receiptHour, 0, 0, 0, t.Location())
	if !at.After(t) {
		at = time.Date(t.Year(), t.Month(), t.Day()+days+7, receiptHour, 0, 0, 0, t.Location())
	}
	return at
}

func newWeek(peers []control.Peer, now time.Time) week {
	w := week{Next: nextReceipt(now.Local()), Began: now, Record: map[string]peerRecord{}}
	for i := range peers {
		w.Record[peers[i].Operator.String()] = peerRecord{peers[i].Met, peers[i].Overruled}
	}
	return w
}

// tally are the sums of a week's events.
type tally struct {
	byPeers, own, lifted, touched int
	cut                           bool // there were more events than are counted
}

// maxTallied bounds the events that are read for a receipt.
const maxTallied = 500_000

// count sums the events since a time. guest says whether a target is a known
// guest of this node.
func count(find func(history.Query) (history.Page, error), since time.Time, guest func(ban.Target) bool) (t tally, err error) {
	q := history.Query{Kinds: []history.Kind{history.Ban, history.Unban}, Since: since, Follow: true, Limit: history.MaxLimit}
	for n := 0; ; {
		page, err := find(q)
		if err != nil {
			return t, err
		}
		for i := range page.Events {
			switch e := &page.Events[i]; {
			case e.Kind == history.Unban:
				t.lifted++
			case e.By != "peers":
				t.own++
			default:
				t.byPeers++
				if guest(e.Target) {
					t.touched++
				}
			}
		}
		n += len(page.Events)
		if !page.More {
			return t, nil
		}
		if n >= maxTallied {
			t.cut = true
			return t, nil
		}
		q.After = page.Next
	}
}

// receipt makes the notice of a week.
func (w *week) receipt(peers []control.Peer, t tally, now time.Time) Notice {
	type score struct {
		name      string
		met, harm int
	}
	var scores []score
	met, guests := 0, 0
	for i := range peers {
		p := &peers[i]
		was := w.Record[p.Operator.String()]
		s := score{name: p.Name, met: max(p.Met-was.Met, 0), harm: max(p.Overruled-was.Overruled, 0) + p.Guests}
		met, guests = met+s.met, guests+p.Guests
		scores = append(scores, s)
	}
	n := Notice{Kind: Receipt, At: now, Count: met}
	text := []string{
		fmt.Sprintf("%s to %s: met %s before they tried, %s touched.", w.Began.Local().Format("2006-01-02"), now.Local().Format("2006-01-02"), number(met, "attacker"), number(t.touched, "known guest")),
	}
	more := ""
	if t.cut {
		more = "at least "
	}
	text = append(text, fmt.Sprintf("%s%s by the word of peers, %d of this node's own; a person lifted %d.", more, number(t.byPeers, "ban"), t.own, t.lifted))
	if guests > 0 {
		text = append(text, fmt.Sprintf("Peers claim %s of this node; no peer's word bans a guest.", number(guests, "guest")))
	}
	best := slices.SortedFunc(slices.Values(scores), func(a, b score) int { return cmp.Or(b.met-a.met, strings.Compare(a.name, b.name)) })
	worst := slices.SortedFunc(slices.Values(scores), func(a, b score) int { return cmp.Or(b.harm-a.harm, strings.Compare(a.name, b.name)) })
	switch {
	case len(scores) == 0:
		text = append(text, "No peer was heard.")
	case met == 0:
		text = append(text, "Nobody came of whom a peer had warned.")
	default:
		text = append(text, fmt.Sprintf("Best peer: %s, which named %d of them first.", best[0].name, best[0].met))
	}
	if len(worst) > 0 && worst[0].harm > 0 {
		who := "peer"
		name, list := strings.CutPrefix(worst[0].name, "list:")
		if list {
			who = "list"
		}
		text = append(text, fmt.Sprintf("Worst %s: %s, with %s (of guests, or overruled here).", who, name, number(worst[0].harm, "false positive")))
	}
	n.Text = strings.Join(text, "\n")
	n.bound()
	return n
}

func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
