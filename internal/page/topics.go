package page

import (
	"net/http"

	"banmesh/internal/control"
)

// topicRow is a topic with its counters, where there are any.
type topicRow struct {
	Topic
	Own, Bans int
}

// inUse says whether the node does something with the topic.
func (t topicRow) inUse() bool { return t.Detect || t.Subscribe || t.Publish || t.Bans > 0 }

// topics lists those in use first.
func (s *Server) topics(r *http.Request) (view, error) {
	var status control.Status
	if err := s.node.Get(r.Context(), "/v1/status", nil, &status); err != nil {
		return view{}, err
	}
	var used, others []topicRow
	for _, t := range s.o.Topics() {
		row := topicRow{Topic: t}
		for _, x := range status.Topics {
			if x.Topic == t.Topic {
				row.Own, row.Bans = x.Own, x.Bans
			}
		}
		if row.inUse() {
			used = append(used, row)
		} else {
			others = append(others, row)
		}
	}
	return view{Title: "Topics", Template: "topics", Data: map[string][]topicRow{"Used": used, "Others": others}}, nil
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
