package page

import (
	"net/http"
	"net/url"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// explainData is the verdict on one target, or the question for one.
type explainData struct {
	Target      string
	Asked       bool
	Fault       string
	Explanation control.Explanation
	Latest      []control.Event
	Topics      []Topic
}

func (s *Server) explain(r *http.Request) (view, error) {
	d := explainData{Target: strings.TrimSpace(r.URL.Query().Get("target"))}
	v := view{Title: "Explain", Template: "explain", Data: &d}
	if d.Target == "" {
		return v, nil
	}
	if _, err := ban.ParseTarget(d.Target); err != nil {
		var found control.Referenced
		if s.node.Get(r.Context(), "/v1/reference", url.Values{"reference": {d.Target}}, &found) != nil {
			d.Fault = err.Error()
			return v, nil
		}
		d.Target = found.Target.String()
	}
	q := url.Values{"target": {d.Target}}
	if err := s.node.Get(r.Context(), "/v1/explain", q, &d.Explanation); err != nil {
		return v, err
	}
	var events control.EventPage
	if err := s.node.Get(r.Context(), "/v1/history", url.Values{"target": {d.Target}, "limit": {"20"}}, &events); err != nil {
		return v, err
	}
	d.Asked, d.Latest, d.Topics = true, events.Events, s.o.Topics()
	v.Title = "Explain " + d.Explanation.Target.String()
	return v, nil
}
