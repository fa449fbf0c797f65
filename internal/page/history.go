package page

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/span"
)

// eventKinds are those that the filter offers, the usual ones first.
var eventKinds = []string{"ban", "extend", "end", "watch-hit", "refuse", "shield", "hold", "strike", "quarantine", "withdraw", "unban", "allow", "dispute", "peer", "config", "start", "stop", "lost"}

// historyData is a part of the node's history.
type historyData struct {
	Target, Topic, Peer, Since string
	Kinds                      []kindChoice
	Limit                      int
	Page                       control.EventPage
	More                       string // the address of a longer list, "" for none
	Fault                      string
	Topics                     []Topic
}

type kindChoice struct {
	Name   string
	Chosen bool
}

// maxEvents is the longest list of one page.
const maxEvents = 2000

func (s *Server) history(r *http.Request) (view, error) {
	q := r.URL.Query()
	d := historyData{Target: strings.TrimSpace(q.Get("target")), Topic: q.Get("topic"), Peer: strings.TrimSpace(q.Get("peer")), Since: strings.TrimSpace(q.Get("since"))}
	ask := url.Values{}
	for _, k := range eventKinds {
		chosen := slices.Contains(q["kind"], k)
		d.Kinds = append(d.Kinds, kindChoice{k, chosen})
		if chosen {
			ask.Add("kind", k)
		}
	}
	for k, v := range map[string]string{"target": d.Target, "topic": d.Topic, "peer": d.Peer} {
		if v != "" {
			ask.Set(k, v)
		}
	}
	v := view{Title: "History", Template: "history", Data: &d}
	if d.Since != "" {
		back, err := span.Parse(d.Since)
		if err != nil || back <= 0 || back > 365*24*time.Hour {
			d.Fault = "“" + d.Since + "” is no length of time such as 1h, 2d or 1w"
			return v, nil
		}
		ask.Set("since", s.o.Now().Add(-back).UTC().Format(time.RFC3339))
	}
	d.Limit, _ = strconv.Atoi(q.Get("limit"))
	if d.Limit < 1 {
		d.Limit = 200
	}
	d.Limit = min(d.Limit, maxEvents)
	ask.Set("limit", strconv.Itoa(d.Limit))
	if err := s.node.Get(r.Context(), "/v1/history", ask, &d.Page); err != nil {
		d.Fault = err.Error()
		return v, nil
	}
	d.Topics = s.o.Topics()
	if d.Page.More && d.Limit < maxEvents {
		next := r.URL.Query()
		next.Set("limit", strconv.Itoa(min(d.Limit*5, maxEvents)))
		d.More = "/history?" + next.Encode()
	}
	return v, nil
}
