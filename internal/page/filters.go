package page

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
)

// filtersData is the filter workshop.
type filtersData struct {
	Topics []Topic
	Spec   string
	Rule   string
	Lines  string
	Fault  string
	Report *detect.TrialReport
	Fates  []fate
	More   int // lines that are not listed

	Proposal *Proposal
}

// A fate is the outcome of one line, for people.
type fate struct {
	Number int
	Text   string
	Verb   string // "matches", "no offence", "ignored" or "missed"
	Why    string
	ID     string
	Fields []field
}

type field struct{ Name, Value string }

const (
	// maxFates bounds the lines that are listed.
	maxFates = 200
	// maxWhy bounds the missed lines of which it is said how far they came: each
	// costs a compilation of the topic.
	maxWhy = 20
	// maxPasted bounds the lines that are tried.
	maxPasted = 128 << 10
)

func (s *Server) filters(r *http.Request) (view, error) {
	d := filtersData{Spec: r.URL.Query().Get("topic"), Topics: s.o.Topics()}
	return view{Title: "Filter workshop", Template: "filters", Data: d}, nil
}

// tryFilter tries a filter on pasted lines. It bans nobody and keeps nothing.
func (s *Server) tryFilter(r *http.Request) (view, error) {
	d := filtersData{Spec: strings.TrimSpace(r.PostFormValue("spec")), Rule: strings.TrimSpace(r.PostFormValue("rule")), Lines: r.PostFormValue("lines"), Topics: s.o.Topics()}
	v := view{Title: "Filter workshop", Template: "filters", Data: &d}
	switch {
	case strings.TrimSpace(d.Lines) == "":
		d.Fault = "Paste some lines of a log."
	case len(d.Lines) > maxPasted:
		d.Fault, d.Lines = "These are more than 128 KiB: paste fewer lines, or use agent filter test.", ""
	case strings.ContainsAny(d.Spec, "/\\"):
		d.Fault = "A path is for agent filter test; here a topic or a filter of fail2ban's is tried, or a rule."
	}
	if d.Fault != "" {
		return v, nil
	}
	release, err := s.alone(r.Context())
	if err != nil {
		return v, err
	}
	defer release()
	report, lines, err := s.o.Trial(r.Context(), TrialRequest{Spec: d.Spec, Rule: d.Rule, Lines: d.Lines})
	if err != nil {
		d.Fault = err.Error()
		return v, nil
	}
	d.Report = report
	asked := 0
	for _, l := range lines {
		if l.Skipped {
			continue
		}
		if len(d.Fates) == maxFates {
			d.More++
			continue
		}
		f := fateOf(l)
		if d.Rule == "" && missed(l) && asked < maxWhy {
			asked++
			if why := s.why(d.Spec, l.Text); why != "" {
				f.Why = why
			}
		}
		d.Fates = append(d.Fates, f)
	}
	d.Proposal = s.propose(r.Context(), d.Spec, lines)
	return v, nil
}

// missed says that nothing in the filter knows a line.
func missed(l detect.TrialLine) bool {
	return !l.Matched && !l.Ignored && !l.Skipped && len(l.NoFail) == 0
}

// why says how far a missed line came in a topic; "" for a filter that is none.
func (s *Server) why(spec, line string) string {
	topic, err := ban.ParseTopic(spec)
	if err != nil {
		return ""
	}
	e := s.o.Why(topic, line)
	switch e.Reached {
	case "no required text":
		return "it has none of the texts that a rule of " + spec + " needs"
	case "prefregex does not match":
		return "the expression before all rules does not match “" + e.Rest + "”"
	case "no failregex matches":
		if e.Date == "" {
			return "no rule matches, and no date was found"
		}
		return "the date is “" + e.Date + "”, and no rule matches the rest: “" + e.Rest + "”"
	}
	return e.Reached
}

// fateOf says the outcome of a line.
func fateOf(l detect.TrialLine) fate {
	f := fate{Number: l.Line, Text: l.Text, ID: l.ID}
	switch {
	case l.Matched:
		f.Verb, f.Why = "matches", "rule "+ordinals([]int{l.Regex})+" names "+l.ID
	case l.Ignored:
		f.Verb, f.Why = "ignored", "an ignoreregex takes it out"
	case len(l.NoFail) > 0:
		f.Verb, f.Why = "no offence", "rule "+ordinals(l.NoFail)+" knows the line, and it is no offence of its own"
	case l.Time == nil:
		f.Verb, f.Why = "missed", "no rule matches, and no date was found at its begin"
	default:
		f.Verb, f.Why = "missed", "no rule matches"
	}
	for _, name := range sortedKeys(l.Fields) {
		f.Fields = append(f.Fields, field{name, l.Fields[name]})
	}
	return f
}

// alone waits for the turn of something costly: one runs at a time.
func (s *Server) alone(ctx context.Context) (release func(), err error) {
	select {
	case s.heavy <- struct{}{}:
		return func() { <-s.heavy }, nil
	case <-ctx.Done():
		return nil, errors.New("the node is busy with another trial: try again in a moment")
	}
}
