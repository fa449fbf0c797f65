package page

import (
	"net/http"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/ledger"
	"banmesh/internal/span"
)

// rulesData is the trial of the rules on the history of claims.
type rulesData struct {
	Last       string
	Topic      string
	Ban, Watch string // other rules in Topic, "" for those in force
	Topics     []Topic
	Trials     []rulesTrial // of the rules in force, and of others
	// Gained and Lost are how many targets the others would have banned more and less.
	Gained, Lost int
	Warn         string
	Fault        string
}

// rulesTrial is one trial, with its name.
type rulesTrial struct {
	ledger.Trial
	Name  string
	Share int // percent of the offenders that were banned or watched before they came
}

// Limits of a trial.
const (
	// maxReplay is as long as the history of claims is kept.
	maxReplay = 7 * 24 * time.Hour
	// maxRule bounds an expression, in bytes.
	maxRule = 1000
)

func (s *Server) rules(r *http.Request) (view, error) {
	q := r.URL.Query()
	d := rulesData{Last: strings.TrimSpace(q.Get("last")), Topic: q.Get("topic"), Ban: strings.TrimSpace(q.Get("ban")), Watch: strings.TrimSpace(q.Get("watch")), Topics: s.o.Topics()}
	v := view{Title: "Rules on last week", Template: "rules", Data: &d}
	if d.Last == "" {
		d.Last = "7d"
		return v, nil
	}
	last, err := span.Parse(d.Last)
	if err != nil || last <= 0 || last > maxReplay {
		d.Fault = "want a time such as 1d, at most 7d: that is how long claims are remembered"
		return v, nil
	}
	if len(d.Ban) > maxRule || len(d.Watch) > maxRule {
		d.Fault, d.Ban, d.Watch = "a rule has at most 1,000 bytes", "", ""
		return v, nil
	}
	release, err := s.alone(r.Context())
	if err != nil {
		return v, err
	}
	defer release()
	if !s.try(r, &d, "the rules in force", last, nil) || d.Ban+d.Watch == "" {
		return v, nil
	}
	topic, err := ban.ParseTopic(d.Topic)
	if err != nil {
		d.Fault = err.Error()
		return v, nil
	}
	other := &control.RulesRequest{Topic: topic, Rules: control.Rules{Accept: true, Ban: d.Ban, Watch: d.Watch}}
	if s.try(r, &d, "with the other rules in "+d.Topic, last, other) {
		d.compare()
	}
	return v, nil
}

// try adds a trial; false where there is none, and the fault says why.
func (s *Server) try(r *http.Request, d *rulesData, name string, last time.Duration, other *control.RulesRequest) bool {
	trial, warn, err := s.o.Replay(r.Context(), last, other)
	if err != nil {
		d.Fault = err.Error()
		return false
	}
	if warn != nil {
		d.Warn = warn.Error()
	}
	x := rulesTrial{Trial: trial, Name: name}
	if trial.Offenders > 0 {
		x.Share = 100 * (trial.Stopped + trial.Caught) / trial.Offenders
	}
	d.Trials = append(d.Trials, x)
	return true
}

// compare counts the targets that one of the two trials bans and the other does not.
func (d *rulesData) compare() {
	had := map[ban.Target]bool{}
	for _, t := range d.Trials[0].Targets {
		had[t] = true
	}
	d.Lost = len(had)
	for _, t := range d.Trials[1].Targets {
		if had[t] {
			d.Lost--
		} else {
			d.Gained++
		}
	}
}
