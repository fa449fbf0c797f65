package page

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
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
	Span     chartSpan
	Spans    []chartSpan
}

// facts keeps the facts of the doctor for a moment: to gather them reads files.
type facts struct {
	mu   sync.Mutex
	at   time.Time
	last doctor.Facts
}

// factsFor is how long facts are judged as those of now.
const factsFor = 5 * time.Second

func (f *facts) get(ctx context.Context, now time.Time, examine func(context.Context) doctor.Facts) doctor.Facts {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.IsZero() || now.Sub(f.at) >= factsFor || now.Before(f.at) {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin) // others are shown it too
		defer cancel()
		f.last, f.at = examine(whole), now
	}
	return f.last
}

// visitor gives the address from where a person looks at the page. Behind a tunnel or a
// proxy of this machine the connection does not say; a proxy's header does, and it
// is believed for no more than the person's own answer.
func visitor(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && !from.Addr().IsLoopback() {
		return from.Addr().Unmap().WithZone("")
	}
	list := strings.Split(r.Header.Get("X-Forwarded-For"), ",")
	a, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1]))
	if err != nil || a.IsLoopback() {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// A chartSpan is a time over which charts can be shown.
type chartSpan struct {
	Name  string // in the address
	Title string
	Slot  time.Duration
	Each  string // a slot's length
	Slots int
}

var chartSpans = []chartSpan{
	{"24h", "The last 24 hours", time.Hour, "an hour", 24},
	{"7d", "The last 7 days", 6 * time.Hour, "six hours", 28},
}

func (s *Server) overview(r *http.Request) (view, error) {
	ctx, now := r.Context(), s.o.Now()
	var status control.Status
	var d overviewData
	var latest control.EventPage
	for _, x := range []struct {
		path  string
		query url.Values
		into  any
	}{
		{"/v1/status", nil, &status},
		{"/v1/peers", nil, &d.Peers},
		{"/v1/history", url.Values{"limit": {"8"}}, &latest},
	} {
		if err := s.node.Get(ctx, x.path, x.query, x.into); err != nil {
			return view{}, err
		}
	}
	for _, f := range doctor.Diagnose(s.facts.get(ctx, now, s.o.Examine), visitor(r)) {
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
	d.Latest, d.Spans, d.Span = latest.Events, chartSpans, chartSpans[0]
	if i := slices.IndexFunc(chartSpans, func(x chartSpan) bool { return x.Name == r.URL.Query().Get("last") }); i >= 0 {
		d.Span = chartSpans[i]
	}
	s.counts.read(ctx, s.node, status)
	s.charts(&d, now)
	return view{Title: "Overview", Template: "overview", Data: d}, nil
}

// charts draws the counts of the chosen time.
func (s *Server) charts(d *overviewData, now time.Time) {
	end := now.UTC().Truncate(time.Hour).Add(time.Hour)
	bars := func(id, title, about string, of func(*hour) map[string]int) chart {
		return draw(id, title, about, s.counts.tallies(of, end, d.Span.Slot, d.Span.Slots), end, d.Span)
	}
	d.ByTopic = bars("topics", "Bans begun, by topic", "Each bar is "+d.Span.Each+".", func(h *hour) map[string]int { return h.Bans })
	d.ByOrigin = bars("operators", "Bans begun, by operator", "A ban counts for each operator on whose word it rests.", func(h *hour) map[string]int { return h.Origins })
	about := "Packets that bans dropped, or counted where they are observed."
	if since := s.counts.since(); end.Sub(since) < time.Duration(d.Span.Slots)*d.Span.Slot {
		about += " Counted since " + since.Format("2006-01-02 15:04") + " UTC."
	}
	d.Drops = bars("drops", "Packets met, by topic", about, func(h *hour) map[string]int { return h.Packets })
	d.DropsBy = bars("drops-by", "Packets met, by operator", "Where a topic is observed: packets that this operator's word would have dropped.", func(h *hour) map[string]int { return h.Operators })
}
