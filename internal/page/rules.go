package page

import (
	"net/http"
	"strings"
	"time"

	"banmesh/internal/ledger"
	"banmesh/internal/span"
)

// rulesData is the trial of the rules on what happened.
type rulesData struct {
	Last  string
	Asked bool
	Trial ledger.Trial
	Share int // percent of the offenders that were banned or watched before they came
	Warn  string
	Fault string
}

// maxReplay is as long as the history of claims is kept.
const maxReplay = 7 * 24 * time.Hour

func (s *Server) rules(r *http.Request) (view, error) {
	d := rulesData{Last: strings.TrimSpace(r.URL.Query().Get("last"))}
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
	release, err := s.alone(r.Context())
	if err != nil {
		return v, err
	}
	defer release()
	trial, warn, err := s.o.Replay(r.Context(), last)
	if err != nil {
		d.Fault = err.Error()
		return v, nil
	}
	if warn != nil {
		d.Warn = warn.Error()
	}
	d.Asked, d.Trial = true, trial
	if trial.Offenders > 0 {
		d.Share = 100 * (trial.Stopped + trial.Caught) / trial.Offenders
	}
	return v, nil
}
