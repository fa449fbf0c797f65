package detect

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
)

// lookEvery is how old the health of a log may be that a status tells.
const lookEvery = 5 * time.Second

// A LogCount is the fate of one named log's lines. One that came through several
// logs that the same topics read counts in the first of them.
type LogCount struct {
	Read, Matched, Ignored, Unmatched uint64
	// LastLine is when a line was last read, by this machine's clock; it may be
	// some seconds early, since the clock is not asked for every line.
	LastLine time.Time
}

// LogCounts are those of a detector's logs. They go from a detector to the one
// that takes its place, so that a reload does not begin them again.
type LogCounts map[source.Log]LogCount

// LogStatus describes one named log: a file pattern, a journal match, a
// container, a listener.
type LogStatus struct {
	source.Log
	Topics []ban.Topic   `json:"topics"`
	Health source.Health `json:"health"`
	Count  LogCount      `json:"count"`
	// Backlog is the known rest that is unread, in bytes, or entries of a journal.
	Backlog int64 `json:"backlog"`
}

// logCounter counts the lines of one log.
type logCounter struct {
	log   source.Log
	wants jailSet
	alike int                            // the first log of its kind that the same topics read, as an index
	lines [lineIgnored + 1]atomic.Uint64 // by verdict
	last  atomic.Int64                   // of [Detector.coarse]
}

// note counts a line. It is called for every line of a log, so it costs one
// atomic addition.
func (c *logCounter) note(v verdict, now int64) {
	c.lines[v].Add(1)
	c.heard(now)
}

// heard notes that a line came through.
func (c *logCounter) heard(now int64) {
	if c.last.Load() != now {
		c.last.Store(now)
	}
}

func (c *logCounter) count() LogCount {
	n := LogCount{Matched: c.lines[lineMatched].Load(), Ignored: c.lines[lineIgnored].Load(), Unmatched: c.lines[lineMissed].Load()}
	n.Read = n.Matched + n.Ignored + n.Unmatched
	if at := c.last.Load(); at > 0 {
		n.LastLine = time.Unix(0, at)
	}
	return n
}

// readerLogs are the named logs of one reader.
type readerLogs struct {
	list []*logCounter
	// first is where the logs of each kind begin in list.
	first map[source.Kind]int

	mu     sync.Mutex
	health []source.Health
	looked time.Time
}

// begin makes the counters of a reader's logs, which go on from those of before.
func (r *reader) beginLogs(before LogCounts) {
	r.logs.first = make(map[source.Kind]int)
	for i, l := range r.spec.Logs() {
		if _, ok := r.logs.first[l.Kind]; !ok {
			r.logs.first[l.Kind] = i
		}
		c := &logCounter{log: l, wants: r.all}
		if table := r.table(l.Kind); l.Index < len(table) {
			c.wants = table[l.Index]
		} else if l.Kind == source.KindStdin && r.stdin != nil {
			c.wants = r.stdin
		}
		if n, ok := before[source.Log{Kind: l.Kind, Name: l.Name}]; ok {
			c.lines[lineMatched].Store(n.Matched)
			c.lines[lineIgnored].Store(n.Ignored)
			c.lines[lineMissed].Store(n.Unmatched)
			if !n.LastLine.IsZero() {
				c.last.Store(n.LastLine.UnixNano())
			}
		}
		c.alike = len(r.logs.list)
		for k, other := range r.logs.list {
			if other.log.Kind == l.Kind && slices.Equal(other.wants, c.wants) {
				c.alike = k
				break
			}
		}
		r.logs.list = append(r.logs.list, c)
	}
}

// table gives the jails that want each log of a kind.
func (r *reader) table(k source.Kind) []jailSet {
	switch k {
	case source.KindFile:
		return r.files
	case source.KindJournal:
		return r.journal
	case source.KindContainer:
		return r.docker
	case source.KindSyslog:
		return r.syslog
	}
	return nil
}

// kindOf tells through which part of the spec a line came.
func kindOf(l *source.Line) source.Kind {
	switch {
	case l.Stream == "stdin":
		return source.KindStdin
	case l.Journal:
		return source.KindJournal
	case strings.HasPrefix(l.Stream, "docker:"):
		return source.KindContainer
	case received(l.Stream):
		return source.KindSyslog
	}
	return source.KindFile
}

// noteLine counts a line in each log that it came through, but in one of those
// that the same topics read: a topic's journal matches overlap, and their counters
// add up to its lines.
func (r *reader) noteLine(l *source.Line, v verdict) {
	kind := kindOf(l)
	first, ok := r.logs.first[kind]
	if !ok {
		return // a replay's line, or one that a person asks about
	}
	now := r.d.coarse.Load()
	if kind == source.KindStdin {
		r.logs.list[first].note(v, now)
		return
	}
	for k, m := range l.Matched {
		i := first + m
		if i >= len(r.logs.list) || r.logs.list[i].log.Kind != kind {
			return
		}
		c := r.logs.list[i]
		if slices.ContainsFunc(l.Matched[:k], func(m int) bool { return r.logs.list[first+m].alike == c.alike }) {
			c.heard(now)
		} else {
			c.note(v, now)
		}
	}
}

// lookAtLogs gives the health of each log, which is at most lookEvery old.
func (r *reader) lookAtLogs() []source.Health {
	r.logs.mu.Lock()
	defer r.logs.mu.Unlock()
	if now := r.d.o.Now(); r.logs.health == nil || now.Sub(r.logs.looked).Abs() >= lookEvery {
		r.logs.health, r.logs.looked = source.Look(r.spec, r.d.o.Source), now
	}
	return r.logs.health
}

// logStatus describes the logs of a reader.
func (r *reader) logStatus(st source.Status) (list []LogStatus) {
	health := r.lookAtLogs()
	for i, c := range r.logs.list {
		s := LogStatus{Log: c.log, Health: health[i], Count: c.count(), Topics: []ban.Topic{}}
		for k, j := range r.jails {
			if c.wants.has(k) {
				s.Topics = append(s.Topics, j.topic)
			}
		}
		for _, stream := range st.Streams {
			if slices.Contains(s.Health.Paths, stream.Name) || c.log.Kind == source.KindJournal && strings.HasPrefix(stream.Name, "journal") {
				s.Backlog += stream.Backlog
			}
		}
		list = append(list, s)
	}
	return list
}

// LogCounts gives the counters of every named log.
func (d *Detector) LogCounts() LogCounts {
	all := make(LogCounts)
	for _, r := range d.readers {
		for _, c := range r.logs.list {
			all[source.Log{Kind: c.log.Kind, Name: c.log.Name}] = c.count()
		}
	}
	return all
}
