package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/span"
)

// lateFor is how long a log that the agent reads may give no line before that is
// reason to doubt: whoever asks logged in meanwhile.
const lateFor = 24 * time.Hour

// manyLines is from how many lines on it is worth a word that none of them was
// an offence.
const manyLines = 10_000

// GroupLogs makes one of the journal matches of the same topics, for people: a
// topic names several, for the versions of its service.
func GroupLogs(list []control.SourceStatus) (out []control.SourceStatus) {
	first := map[string]int{}
	matches := map[string]int{}
	for _, x := range list {
		key := names(x.Topics) + " " + x.Error
		i, ok := first[key]
		if x.Kind != "journal" || !ok {
			if x.Kind == "journal" {
				first[key], matches[key] = len(out), 1
			}
			out = append(out, x)
			continue
		}
		g := &out[i]
		matches[key]++
		g.Name = fmt.Sprintf("journal, %d matches", matches[key])
		g.Read, g.Matched, g.Ignored, g.Unmatched = g.Read+x.Read, g.Matched+x.Matched, g.Ignored+x.Ignored, g.Unmatched+x.Unmatched
		g.Found = max(g.Found, x.Found)
		if x.LastLine.After(g.LastLine) {
			g.LastLine = x.LastLine
		}
	}
	return out
}

// logs judges each log that a topic names: is it there, does it say something,
// do the filters match. One that cannot be read is a warning of the status
// already. A log without a line is none of itself a fault: a service that
// nobody uses is silent.
func (e Facts) logs(add func(string, Level, string, string, ...any)) {
	there, heard := map[ban.Topic]bool{}, map[ban.Topic]bool{}
	for _, x := range e.Status.Sources {
		for _, t := range x.Topics {
			there[t] = there[t] || x.Found != 0
			heard[t] = heard[t] || !x.LastLine.IsZero()
		}
	}
	by := func(x control.SourceStatus, has map[ban.Topic]bool) bool {
		return !slices.ContainsFunc(x.Topics, func(t ban.Topic) bool { return !has[t] })
	}
	for _, x := range GroupLogs(e.Status.Sources) {
		name := fmt.Sprintf("%s (for %s)", x.Name, names(x.Topics))
		since := e.Now.Sub(x.LastLine)
		switch {
		case x.Error != "":
		case x.Found == 0:
			// A topic names the places of several systems; that none of them is there
			// is a warning of the status.
			if by(x, there) {
				add("log", LevelOK, "", "%s: not on this machine; the topic has another log", name)
			}
		case x.LastLine.IsZero() && by(x, heard):
			add("log", LevelOK, "", "%s: not a line yet; the topic has another log that is written", name)
		case x.LastLine.IsZero() && e.Now.Sub(e.Status.Started) > lateFor:
			add("log", LevelWrong, "is it the right log? agent topics list, and files or journal in agent.toml", "%s: not a line in the %s that the agent runs", name, span.Short(e.Now.Sub(e.Status.Started)))
		case x.LastLine.IsZero():
			add("log", LevelNote, "", "%s: not a line yet", name)
		case since > lateFor:
			add("log", LevelNote, "is the service still logging there? rotated away?", "%s: silent for %s", name, span.Short(since))
		case x.Matched == 0 && x.Read > manyLines:
			add("filter", LevelNote, "agent filter test", "%s: %d lines and no offence among them; the filter may not fit this version's log", name, x.Read)
		default:
			add("log", LevelOK, "", "%s: last line %s ago, %d of %d were offences", name, span.Short(since), x.Matched, x.Read)
		}
	}
}

func names(topics []ban.Topic) string {
	list := make([]string, 0, len(topics))
	for _, t := range topics {
		list = append(list, string(t))
	}
	return strings.Join(list, ",")
}

// count says how many there are of something.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
