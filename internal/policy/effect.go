package policy

import (
	"iter"
	"time"

	"banmesh/internal/ban"
)

// An Effect counts the verdicts that a change of policy changes, by the claims
// that are known now.
type Effect struct {
	// Begin and End are how many bans begin and end at once; Watched and
	// Unwatched how many targets begin and cease to be watched or suspects,
	// those that are or were banned left out.
	Begin     int `json:"begin"`
	End       int `json:"end"`
	Watched   int `json:"watched"`
	Unwatched int `json:"unwatched"`
	// Begins and Ends are some of the bans that begin and end.
	Begins []Sample `json:"begins,omitempty"`
	Ends   []Sample `json:"ends,omitempty"`
}

// A Sample is one target of an [Effect] and why it is, or no longer is, banned.
type Sample struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	Why    Reason     `json:"why"`
	Rule   string     `json:"rule,omitempty"`
	Until  time.Time  `json:"until,omitzero"` // the end that the ban has, or had
}

// MaxSamples bounds the lists of an [Effect].
const MaxSamples = 10

// Compare judges every question by two policies. It changes nothing and costs
// two verdicts a question.
func Compare(questions iter.Seq[Question], before, after *Policy) (e Effect) {
	for q := range questions {
		q.Brief = true
		was, is := before.Judge(q), after.Judge(q)
		switch {
		case was.Action == is.Action:
		case is.Action == Ban:
			e.Begin++
			if len(e.Begins) < MaxSamples {
				e.Begins = append(e.Begins, Sample{q.Topic, q.Target, is.Why, is.Rule, is.Until})
			}
		case was.Action == Ban:
			e.End++
			if len(e.Ends) < MaxSamples {
				e.Ends = append(e.Ends, Sample{q.Topic, q.Target, is.Why, is.Rule, was.Until})
			}
		case was.Action == Ignore:
			e.Watched++
		case is.Action == Ignore:
			e.Unwatched++
		}
	}
	return e
}
