package federation

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// Words for how a feed stands.
const (
	StatusSynced       = "synced"       // the author's own state
	StatusJoining      = "joining"      // pieces are on their way
	StatusUnseen       = "unseen"       // no broker has anything of it
	StatusStale        = "stale"        // the author, or a broker, has been silent for too long
	StatusWithheld     = "withheld"     // a head names pieces, or a card, that no broker hands out
	StatusEquivocating = "equivocating" // the key has signed two different stories
	StatusContested    = "contested"    // one epoch follows the other: two machines seem to write with the key
	StatusStolen       = "stolen"       // the author says that somebody else has its key
	StatusTooLarge     = "too-large"    // it is beyond the limits of the protocol
	StatusQuarantined  = "quarantined"  // its content was beyond the limits of this node
	StatusRevoked      = "revoked"      // the operator has revoked the node
	StatusUncertified  = "uncertified"  // the operator's card does not certify the node, or no longer
	StatusCloned       = "cloned"       // own feed: somebody else writes with our key
	StatusWriting      = "writing"      // own feed: as it should be
	StatusUnanswered   = "unanswered"   // own feed: no broker has acknowledged its newest messages for seconds
	StatusCutOff       = "cut-off"      // no broker answers: changes since the newest head are not known
	StatusPrivate      = "private"      // own feed: kept, not published
)

// FeedStatus says how a feed stands.
type FeedStatus struct {
	Feed        ban.Feed  `json:"-"`
	Topic       ban.Topic `json:"topic"`
	Operator    string    `json:"operator"`
	Node        string    `json:"node"`
	Name        string    `json:"name,omitempty"` // the name that the operator is known by
	Own         bool      `json:"own"`
	Status      string    `json:"status"`        // one of the Status words
	Why         string    `json:"why,omitempty"` // more about the status, for a person
	Epoch       uint64    `json:"epoch"`
	Batch       uint64    `json:"batch"`  // the newest one applied, or written
	Newest      uint64    `json:"newest"` // the newest one that is known of
	Claims      int       `json:"claims"`
	Bytes       int       `json:"bytes"`           // of the pieces and the log
	Issued      time.Time `json:"issued,omitzero"` // of the newest head
	FreshUntil  time.Time `json:"fresh_until,omitzero"`
	Missing     int       `json:"missing"` // pieces that are asked for
	Replays     int       `json:"replays"`
	Mismatches  int       `json:"mismatches"` // states that were not the author's
	Disputes    int       `json:"disputes"`
	Restarted   time.Time `json:"restarted,omitzero"` // own: when this process had to begin the feed again
	Fingerprint string    `json:"fingerprint"`
}

// Feeds gives the standing of the node's own feeds and of all that are
// followed, in no order.
func (s *Session) Feeds() []FeedStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.reader.statuses(s.o.Now())
	for i := range out {
		if s.o.Trusted != nil {
			if name, ok := s.o.Trusted(out[i].Feed.Operator); ok {
				out[i].Name = name
			}
		}
	}
	for t, a := range s.publisher.authors {
		out = append(out, a.feedStatus(s.publisher.topics[t]))
	}
	s.byConnection(out)
	for i := range out {
		f := out[i].Feed
		out[i].Topic, out[i].Operator, out[i].Node = f.Topic, f.Operator.String(), f.Node.String()
	}
	return out
}

// unansweredAfter is how long a broker may take to acknowledge a message before
// that is said of the feeds.
const unansweredAfter = 5 * time.Second

// byConnection takes back statements that cannot be made of feeds while no broker answers, or
// none acknowledges.
func (s *Session) byConnection(feeds []FeedStatus) {
	if !s.running {
		return // it only reads stored feeds
	}
	up, answers := false, false
	refused := map[string]int{} // links that refuse a filter
	connected := 0
	for _, l := range s.links {
		x := l.status()
		up = up || x.Connected
		answers = answers || x.Connected && !x.unanswered(s.o.Now())
		if x.Connected {
			connected++
			for f := range l.refusedFilters() {
				refused[f]++
			}
		}
	}
	for i := range feeds {
		switch f := &feeds[i]; f.Status {
		case StatusSynced, StatusJoining, StatusUnseen, StatusStale:
			if len(refused) > 0 && !f.Own && refused[s.reader.filterOf(f.Feed, s.base)] == connected {
				f.Status, f.Why = StatusWithheld, "no broker grants the subscription that hears it"
			}
		}
		switch f := &feeds[i]; f.Status {
		case StatusSynced, StatusJoining, StatusUnseen, StatusWithheld, StatusStale, StatusWriting:
			switch {
			case !up:
				f.Status = StatusCutOff
			case f.Own && !answers:
				f.Status = StatusUnanswered
			}
		}
	}
}

// Brokers gives the standing of all connections, in the order of the options.
func (s *Session) Brokers() []BrokerStatus {
	out := make([]BrokerStatus, 0, len(s.links))
	for _, l := range s.links {
		if l.broker.ready() {
			out = append(out, l.status())
		}
	}
	return out
}

// Counts gives the totals so far.
func (s *Session) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts.copy()
}

func (a *author) feedStatus(published bool) FeedStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := FeedStatus{
		Feed: a.feed, Own: true, Status: StatusWriting, Epoch: a.epoch, Batch: a.n, Newest: a.n, Claims: a.set.count, Issued: a.headIssued,
		FreshUntil: a.headIssued.Add(headTTL), Fingerprint: fmt.Sprintf("%x", a.set.fingerprint()), Bytes: a.base(), Missing: len(a.pending), Restarted: a.restarted,
	}
	switch {
	case a.stopped != "":
		v.Status, v.Why = StatusCloned, a.stopped
	case !published:
		v.Status = StatusPrivate
	}
	return v
}

func (f *follower) feedStatus(now time.Time) FeedStatus {
	v := FeedStatus{
		Feed: f.feed, Status: f.status(now), Why: f.quarantined, Epoch: f.epoch, Batch: f.n, Newest: f.n, Claims: f.set.count, Bytes: f.baseBytes + f.logBytes,
		Missing: len(f.wanted), Replays: f.replays, Mismatches: f.badState, Disputes: len(f.disputeClaims), Fingerprint: fmt.Sprintf("%x", f.set.fingerprint()),
	}
	if f.head != nil {
		v.Issued, v.FreshUntil = f.headIssued, f.headIssued.Add(f.head.TTL)
		v.Newest = max(f.head.N, f.n, f.pending.last)
	}
	return v
}

// status says how the feed stands, in a closed set of words.
func (f *follower) status(now time.Time) string {
	switch {
	case f.quarantined != "":
		return StatusQuarantined
	case f.halted == wire.ErrRevoked:
		return StatusRevoked
	case f.halted != nil:
		return StatusUncertified
	case f.stolen:
		return StatusStolen
	case f.frozen > 0 && f.frozen >= f.headEpoch:
		return StatusEquivocating
	case f.contested(now):
		return StatusContested
	case f.tooLarge:
		return StatusTooLarge
	case f.head == nil && !f.sound:
		return StatusUnseen
	case f.head == nil || now.After(f.headIssued.Add(f.head.TTL)):
		return StatusStale
	case f.behind() && f.tries > 2:
		return StatusWithheld
	case f.behind():
		return StatusJoining
	}
	return StatusSynced
}
