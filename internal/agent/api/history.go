package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

// Chronicle is the node's own history.
type Chronicle interface {
	// Add notes an event, and never waits.
	Add(history.Event)
	// Flush waits until every event of before is written, or ctx ends.
	Flush(context.Context)
	Find(history.Query) (history.Page, error)
	Wait(context.Context, history.Query) (history.Page, error)
	Stats() history.Stats
}

// maxWait bounds how long a reader of events may wait for the next one.
const maxWait = time.Minute

// history answers with the newest events, newest first.
func (s *Server) history(r *http.Request) (any, error) {
	q, err := HistoryQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	s.o.Chronicle.Flush(r.Context())
	page, err := s.o.Chronicle.Find(q)
	if err != nil {
		return nil, err
	}
	return EventPage(page, s.o.Chronicle.Stats()), nil
}

// events answers with those behind a cursor, oldest first.
func (s *Server) events(r *http.Request) (any, error) {
	v := r.URL.Query()
	q, err := HistoryQuery(v)
	if err != nil {
		return nil, err
	}
	q.Follow = true
	if text := v.Get("after"); text != "" {
		after, err := strconv.ParseUint(text, 10, 53)
		if err != nil {
			return nil, control.Refuse(control.CodeBad, "", "after: %.64q is no cursor", text)
		}
		q.After = history.Cursor(after)
	}
	wait := time.Duration(0)
	if text := v.Get("wait"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, control.Refuse(control.CodeBad, "", "wait: %.64q is no number of seconds", text)
		}
		wait = min(time.Duration(n)*time.Second, maxWait)
	}
	s.o.Chronicle.Flush(r.Context())
	page, err := s.o.Chronicle.Find(q)
	if err == nil && wait > 0 && len(page.Events) == 0 && !page.Missed {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		page, err = s.o.Chronicle.Wait(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	return EventPage(page, s.o.Chronicle.Stats()), nil
}

// HistoryQuery reads the parameters that both have.
func HistoryQuery(v url.Values) (q history.Query, err error) {
	if text := v.Get("target"); text != "" {
		if q.Target, err = ban.ParseTarget(text); err != nil {
			return q, control.Refuse(control.CodeBad, "", "%v", err)
		}
	}
	if text := v.Get("topic"); text != "" {
		if q.Topic, err = ban.ParseTopic(text); err != nil {
			return q, control.Refuse(control.CodeBad, "", "%v", err)
		}
	}
	q.Peer = v.Get("peer")
	for _, text := range v["kind"] {
		k, ok := history.ParseKind(text)
		if !ok {
			return q, control.Refuse(control.CodeBad, "", "kind: %.64q is none of %v", text, history.Kinds())
		}
		q.Kinds = append(q.Kinds, k)
	}
	if text := v.Get("since"); text != "" {
		if q.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return q, control.Refuse(control.CodeBad, "", "since: %.64q is no time", text)
		}
	}
	if text := v.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > history.MaxLimit {
			return q, control.Refuse(control.CodeBad, "", "limit: %.64q is not within 1 and %d", text, history.MaxLimit)
		}
	}
	return q, nil
}

// EventPage converts an answer of the history.
func EventPage(p history.Page, s history.Stats) control.EventPage {
	out := control.EventPage{Events: make([]control.Event, 0, len(p.Events)), Next: uint64(p.Next), More: p.More, Missed: p.Missed, Kept: s.Events, Oldest: s.Oldest.UTC()}
	if s.Oldest.IsZero() {
		out.Oldest = time.Time{}
	}
	for _, e := range p.Events {
		out.Events = append(out.Events, control.Event{
			Cursor: uint64(e.Cursor), At: e.At, Kind: string(e.Kind), Topic: e.Topic, Target: e.Target, By: e.By, Peers: e.Peers, Why: e.Why,
			Until: e.Until, Count: e.Count, First: e.First, Source: e.Source, Sample: e.Sample, Port: e.Port,
		})
	}
	return out
}

// aPerson is who acts by hand.
const aPerson = "a person"

// mostNoted is how many events one command makes; a longer list of targets is one
// event with a count.
const mostNoted = 1_000

// several gives the events of a list.
func several(n int, each func(int) history.Event) (list []history.Event) {
	if n > mostNoted {
		e := each(0)
		e.Target, e.Count, e.Why = ban.Target{}, n, e.Why+" (so many targets in one command)"
		return []history.Event{e}
	}
	for i := range n {
		list = append(list, each(i))
	}
	return list
}

// note adds an event of a person's decision and waits until it is on its way to
// the disk: the answer that the person gets is in the history then.
func (s *Server) note(ctx context.Context, list ...history.Event) {
	for _, e := range list {
		e.At = s.o.Now()
		if e.By == "" {
			e.By = aPerson
		}
		s.o.Chronicle.Add(e)
	}
	s.o.Chronicle.Flush(ctx)
}
