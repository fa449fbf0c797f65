package page

import (
	"net/http"

	"banmesh/internal/control"
)

func (s *Server) topics(r *http.Request) (view, error) {
	var status control.Status
	if err := s.node.Get(r.Context(), "/v1/status", nil, &status); err != nil {
		return view{}, err
	}
	return view{Title: "Topics", Template: "topics", Data: status.Topics}, nil
}

// setSwitch sets one switch of a topic.
func (s *Server) setSwitch(r *http.Request) (notice, error) {
	t, err := topic(r)
	if err != nil {
		return notice{}, err
	}
	q := SwitchRequest{Topic: t, Field: r.PostFormValue("field"), Value: r.PostFormValue("value") == "on", Yes: yes(r)}
	if q.Field != "detect" && q.Field != "subscribe" && q.Field != "publish" {
		return notice{}, control.Refuse(control.CodeBad, "", "%.32q is no switch of a topic", q.Field)
	}
	effect, err := s.o.Switch(r.Context(), q)
	if err != nil {
		return notice{}, err
	}
	words := map[string][2]string{
		"detect":    {"no longer looking for offenders", "looking for offenders"},
		"subscribe": {"no longer accepting bans of others", "accepting bans of trusted operators"},
		"publish":   {"no longer publishing; the feed is withdrawn from the brokers", "publishing this node's own bans: target, class, count and end; no log line, user name or host name"},
	}[q.Field]
	n := notice{Good: true, Text: string(t) + ": " + words[0] + "."}
	if q.Value {
		n.Text = string(t) + ": " + words[1] + "."
	}
	if effect.Begin+effect.End > 0 {
		n.Lines = append(n.Lines, plural(effect.Begin, "ban")+" began and "+plural(effect.End, "ban")+" ended by that.")
	}
	n.kernel(effect.Kernel)
	return n, nil
}
