package page

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/doctor"
)

// overviewData is the first page: is the node well, and how busy is it.
type overviewData struct {
	Findings []doctor.Finding // those that somebody should know
	Well     int              // checks that passed
	Peers    []control.Peer
	Topics   []control.TopicStatus
	Sources  []control.SourceStatus
	Met      uint64 // packets that bans met
	Latest   []control.Event
	ByTopic  chart
	ByOrigin chart
	Drops    chart
	DropsBy  chart
	Cut      bool // there were more bans than the charts are made of
}

// findings keeps the judgement of the doctor for a moment: it reads files.
type findings struct {
	mu   sync.Mutex
	at   time.Time
	list []doctor.Finding
}

// chartEvents is the most events that a chart is made of.
const chartEvents = "10000"

// findingsFor is how long a judgement is shown as that of now.
const findingsFor = 5 * time.Second

func (f *findings) get(ctx context.Context, now time.Time, judge func(context.Context) []doctor.Finding) []doctor.Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() || now.Sub(f.at) >= findingsFor || now.Before(f.at) {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin) // others are shown it too
		defer cancel()
		f.list, f.at = judge(whole), now
	}
	return f.list
}

func (s *Server) overview(r *http.Request) (view, error) {
	ctx, now := r.Context(), s.o.Now()
	var status control.Status
	var d overviewData
	var latest, bans control.EventPage
	for _, x := range []struct {
		path  string
		query url.Values
		into  any
	}{
		{"/v1/status", nil, &status},
		{"/v1/peers", nil, &d.Peers},
		{"/v1/history", url.Values{"limit": {"8"}}, &latest},
		{"/v1/history", url.Values{"limit": {chartEvents}, "kind": {"ban"}, "since": {now.Add(-24 * time.Hour).UTC().Format(time.RFC3339)}}, &bans},
	} {
		if err := s.node.Get(ctx, x.path, x.query, x.into); err != nil {
			return view{}, err
		}
	}
	for _, f := range s.findings.get(ctx, now, s.o.Doctor) {
		if f.Level == doctor.LevelOK {
			d.Well++
		} else {
			d.Findings = append(d.Findings, f)
		}
	}
	for _, t := range status.Topics {
		d.Met += t.Packets
		if t.Detect || t.Subscribe || t.Publish || t.Bans > 0 {
			d.Topics = append(d.Topics, t)
		}
	}
	for _, x := range doctor.GroupLogs(status.Sources) {
		if x.Found != 0 {
			d.Sources = append(d.Sources, x)
		}
	}
	d.Latest, d.Cut = latest.Events, bans.More
	s.charts(&d, bans.Events, now)
	return view{Title: "Overview", Template: "overview", Data: d}, nil
}

// charts draws the last 24 hours, an hour a bar.
func (s *Server) charts(d *overviewData, bans []control.Event, now time.Time) {
	const hours = 24
	end := now.Truncate(time.Hour).Add(time.Hour)
	var byTopic, byOrigin []tally
	for _, e := range bans {
		slot := hours - 1 - int(end.Sub(e.At)/time.Hour)
		if slot < 0 || slot >= hours {
			continue
		}
		byTopic = append(byTopic, tally{slot, string(e.Topic), 1})
		if len(e.Peers) == 0 {
			byOrigin = append(byOrigin, tally{slot, "this node", 1})
		}
		for _, p := range e.Peers {
			byOrigin = append(byOrigin, tally{slot, p, 1})
		}
	}
	d.ByTopic = draw("topics", "Bans begun, by topic", "Each bar is an hour of the last 24.", byTopic, end, time.Hour, hours)
	d.ByOrigin = draw("operators", "Bans begun, by operator", "A ban counts for each operator on whose word it rests.", byOrigin, end, time.Hour, hours)
	drops, dropsBy, since := s.samples.met(end, time.Hour, hours)
	about := "Packets that bans dropped, or counted where they are observed."
	if !since.IsZero() && end.Sub(since) < hours*time.Hour {
		about += " Counted since " + since.UTC().Format("15:04") + " UTC, when the agent began."
	}
	d.DropsBy = draw("drops-by", "Packets met, by operator", "Where a topic is observed: packets that this operator's word would have dropped.", dropsBy, end, time.Hour, hours)
	d.Drops = draw("drops", "Packets met, by topic", about, drops, end, time.Hour, hours)
}
