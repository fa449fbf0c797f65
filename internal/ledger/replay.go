package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A Trial is a policy tried on a history.
type Trial struct {
	From, To time.Time
	Claims   int `json:"claims"` // that peers made
	// Banned is how many targets the peers' claims would have banned here, and
	// Watched how many they would have had watched and never banned.
	Banned  int `json:"banned"`
	Watched int `json:"watched"`
	// Offenders came here; Stopped of them were banned when they came, Caught
	// were watched and fell at their first offence.
	Offenders int `json:"offenders"`
	Stopped   int `json:"stopped"`
	Caught    int `json:"caught"`
	// Held is how many claims waited at the end.
	Held int `json:"held"`
	// Conflicts are claims of targets that must never be banned.
	Conflicts []Conflict `json:"conflicts"`
	// Targets are the banned ones, sorted: for a comparison.
	Targets []ban.Target `json:"-"`
}

// A Conflict is a claim of a target that must never be banned, counted by operator.
type Conflict struct {
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	Target   ban.Target   `json:"target"`
	Why      string       `json:"why"`
}

// maxConflicts bounds the conflicts of a trial.
const maxConflicts = 100

// A Replay tries a policy on events as they are fed to it.
type Replay struct {
	l       *Ledger
	now     time.Time
	never   policy.Protection
	trial   Trial
	banned  map[ban.Target]bool
	watched map[ban.Target]bool
	seen    map[Conflict]bool
}

// NewReplay begins a trial with the never-ban list and the addresses
// that many people share; both may be nil.
func NewReplay(p *policy.Policy, never, shared policy.Protection) (*Replay, error) {
	r := &Replay{never: never, banned: map[ban.Target]bool{}, watched: map[ban.Target]bool{}, seen: map[Conflict]bool{}}
	var err error
	r.l, err = Open(Options{Policy: p, NeverBan: never, Caution: shared, Now: func() time.Time { return r.now }})
	return r, err
}

// Feed takes the next event; time never goes back.
func (r *Replay) Feed(e Event) error {
	if r.trial.From.IsZero() {
		r.trial.From = e.At
	}
	if e.At.After(r.now) {
		r.now = e.At
		r.l.Expire(r.now)
		r.collect()
	}
	r.trial.To = r.now
	if e.Own {
		// Is it known when it comes? The ban that followed is left out: it would hide
		// the effect of peers' claims.
		r.trial.Offenders++
		s, ok := r.l.Standing(e.Feed.Topic, e.Claim.Target)
		switch {
		case ok && s.Action == policy.Ban:
			r.trial.Stopped++
		case r.l.Watched(e.Feed.Topic, e.Claim.Target):
			r.trial.Caught++
		}
		return nil
	}
	c := ban.Change{Feed: e.Feed}
	if e.Removed {
		c.Withdrawn = ban.Withdraw(ban.ReasonEnded, e.Claim.Target)
	} else {
		c.Claims = []ban.Claim{e.Claim}
		r.trial.Claims++
		if why, ok := protects(r.never, e.Claim.Target); ok && len(r.seen) < maxConflicts {
			r.seen[Conflict{e.Feed.Operator, r.l.nameOf(e.Feed.Operator), e.Claim.Target, why}] = true
		}
	}
	if err := r.l.Peers.Apply(c); err != nil {
		return err
	}
	r.collect()
	if r.l.Watched(e.Feed.Topic, e.Claim.Target) && !r.banned[e.Claim.Target] {
		r.watched[e.Claim.Target] = true
	}
	return nil
}

func protects(p policy.Protection, t ban.Target) (string, bool) {
	if p == nil {
		return "", false
	}
	return p.Protects(t)
}

func (r *Replay) collect() {
	for _, c := range r.l.Enforcement.Take(1 << 30) {
		if c.Ban {
			r.banned[c.Target] = true
			delete(r.watched, c.Target)
		}
	}
}

// End gives the trial.
func (r *Replay) End() Trial {
	t := r.trial
	t.Banned, t.Watched = len(r.banned), len(r.watched)
	for _, h := range r.l.Peers.Holds() {
		t.Held += h.Claims
	}
	t.Conflicts = slices.SortedFunc(maps.Keys(r.seen), func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Target.Compare(b.Target))
	})
	t.Targets = slices.SortedFunc(maps.Keys(r.banned), ban.Target.Compare)
	return t
}
