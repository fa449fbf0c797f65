package notify

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

const (
	// gather is how long the first notice of a kind waits for those that come with
	// it.
	gather = 5 * time.Second
	// maxKept bounds the notices of a kind that wait; of further ones their number
	// is kept, and how many each operator gave.
	maxKept = 20
	// firstPause and longestPause are the pauses after attempts that fail.
	firstPause, longestPause = 30 * time.Second, time.Hour
)

// An outbox holds the notices for one receiver until they are sent. It is a plain
// value of times that it is given, and has no clock of its own.
type outbox struct {
	Born     time.Time          `json:"born"` // things of before are not told
	Pending  map[Kind]*pending  `json:"pending,omitempty"`
	Last     map[Kind]time.Time `json:"last,omitempty"` // when a message of a kind was sent
	Sent     uint64             `json:"sent"`
	Failed   uint64             `json:"failed"`
	LastSent time.Time          `json:"last_sent,omitzero"`
	Answer   string             `json:"answer,omitempty"` // of the last message
	Error    string             `json:"error,omitempty"`  // of the last attempt, "" where it succeeded
	ErrorAt  time.Time          `json:"error_at,omitzero"`
	Failing  time.Time          `json:"failing,omitzero"` // since when every attempt fails
	Fails    int                `json:"fails,omitempty"`  // in a row
	Retry    time.Time          `json:"retry,omitzero"`
	// flying is the kind that is being sent; its notices stay pending until they
	// have arrived, also on disk.
	flying Kind
}

// pending are notices of one kind.
type pending struct {
	ID      string         `json:"id"` // of the message that they will be, over all attempts
	Since   time.Time      `json:"since"`
	Notices []Notice       `json:"notices"`
	More    int            `json:"more,omitempty"` // further ones that are counted alone
	By      map[string]int `json:"by,omitempty"`   // of all: how many each operator gave
	// Tried says that an attempt was made: a receiver may have taken the message
	// without saying so, and tells by the ID that it has it. So it stays as it is,
	// and further notices wait behind it.
	Tried  bool     `json:"tried,omitempty"`
	Behind *pending `json:"behind,omitempty"`
}

func (p *pending) add(n Notice) {
	if len(p.Notices) < maxKept {
		p.Notices = append(p.Notices, n)
	} else {
		p.More++
	}
	for _, name := range n.Peers {
		if _, known := p.By[name]; !known && len(p.By) >= maxPeers {
			name = "others"
		}
		if p.By == nil {
			p.By = map[string]int{}
		}
		p.By[name]++
	}
}

// size is how many notices there are.
func (p *pending) size() int {
	if p == nil {
		return 0
	}
	return len(p.Notices) + p.More + p.Behind.size()
}

func newPending(now time.Time) *pending { return &pending{ID: newID(), Since: now} }

// add takes a notice.
func (o *outbox) add(n Notice, now time.Time) {
	p := o.Pending[n.Kind]
	if p == nil {
		p = newPending(now)
		if o.Pending == nil {
			o.Pending = map[Kind]*pending{}
		}
		o.Pending[n.Kind] = p
	}
	if p.Tried {
		if p.Behind == nil {
			p.Behind = newPending(now)
		}
		p = p.Behind
	}
	p.add(n)
}

// ready gives when the notices of a kind may be sent.
func (o *outbox) ready(e *Entry, k Kind, p *pending) time.Time {
	at := later(p.Since.Add(gather), o.Last[k].Add(e.Every), o.Retry)
	if slices.Contains(e.Urgent, k) {
		return at
	}
	return later(at, e.Quiet.End(at.Local()))
}

func later(list ...time.Time) time.Time {
	return slices.MaxFunc(list, func(a, b time.Time) int { return a.Compare(b) })
}

// due gives the kind to send now, or when to ask again; zero where nothing waits.
// Urgent kinds come first, then the one that waits for longest.
func (o *outbox) due(e *Entry, now time.Time) (k Kind, again time.Time) {
	if o.flying != "" {
		return "", time.Time{}
	}
	for _, x := range slices.Sorted(maps.Keys(o.Pending)) {
		p := o.Pending[x]
		at := o.ready(e, x, p)
		if at.After(now) {
			if again.IsZero() || at.Before(again) {
				again = at
			}
			continue
		}
		if k == "" || o.before(e, x, k) {
			k = x
		}
	}
	return k, again
}

func (o *outbox) before(e *Entry, a, b Kind) bool {
	rank := func(k Kind) int {
		if slices.Contains(e.Urgent, k) {
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), o.Pending[a].Since.Compare(o.Pending[b].Since)) < 0
}

// begin notes that the notices of a kind are being sent.
func (o *outbox) begin(k Kind) {
	o.flying = k
	o.Pending[k].Tried = true
}

// done notes how an attempt ended. after is how long the receiver asks to wait,
// 0 where it says nothing.
func (o *outbox) done(k Kind, answer string, err error, after time.Duration, now time.Time) {
	o.flying = ""
	if err != nil {
		o.Failed++
		o.Fails++
		o.Error, o.ErrorAt = clean(err.Error(), maxText), now
		if o.Failing.IsZero() {
			o.Failing = now
		}
		pause := min(firstPause<<min(o.Fails-1, 10), longestPause)
		o.Retry = now.Add(max(pause, min(after, longestPause)))
		return
	}
	o.Sent++
	o.Fails, o.Error, o.Failing, o.Retry = 0, "", time.Time{}, time.Time{}
	o.LastSent, o.Answer = now, answer
	if o.Last == nil {
		o.Last = map[Kind]time.Time{}
	}
	o.Last[k] = now
	p := o.Pending[k]
	delete(o.Pending, k)
	if p != nil && p.Behind != nil {
		o.Pending[k] = p.Behind
	}
}

// waiting is how many notices wait.
func (o *outbox) waiting() (n int) {
	for _, p := range o.Pending {
		n += p.size()
	}
	return n
}

// forget drops the notices of kinds that an entry no longer takes.
func (o *outbox) forget(e *Entry) {
	maps.DeleteFunc(o.Pending, func(k Kind, _ *pending) bool { return !e.Wants(k) && k != o.flying })
}
