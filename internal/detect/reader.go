package detect

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/pattern"
	"banmesh/internal/detect/source"
)

// oddTime is how far a live line's date may be from the clock before the line
// counts as just written, as in fail2ban: a wrong time zone must not hide an
// attack.
const oddTime = time.Minute

// maxStreams bounds what is remembered of streams at a time.
const maxStreams = 4096

// A reader reads one source for all jails that share it: each line is scanned
// once for the literals of all their expressions.
type reader struct {
	d      *Detector
	spec   source.Spec
	source source.Source
	jails  []*jail
	// offsets[i] is the first word of jail i's candidates.
	offsets []int
	scanner *pattern.Scanner
	cands   []uint64
	// multiline says that a jail matches several lines together.
	multiline bool
	// wants maps entries of the spec to jails' indexes.
	files, journal, docker, syslog [][]int
	stdin                          []int

	mu      sync.Mutex // held while a line is handled
	streams map[string]*stream
	prefix  []byte
	all     []int
	caught  atomic.Bool // the backlog has been read
	matched atomic.Uint64
	ignored atomic.Uint64
	missed  atomic.Uint64
}

// A stream is one log's state: what each jail knows of it.
type stream struct{ followers []*filter.Follower }

// newReaders groups jails by the logs that they share and opens a source for
// each group.
func newReaders(d *Detector, resume source.Position) ([]*reader, error) {
	var out []*reader
	for _, group := range groups(d.jails, journalPresent(d.o.JournalDirs)) {
		r := newReader(d, group)
		var err error
		if r.source, err = source.Open(r.spec, mine(resume, r.spec), d.o.Source); err != nil {
			return nil, fmt.Errorf("watching %s: %w", group.jails[0].topic, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// newReader builds the scanner of a group's jails. Each jail's expressions
// begin at a word of their own.
func newReader(d *Detector, group *readerGroup) *reader {
	r := &reader{
		d: d, jails: group.jails, spec: group.spec, files: group.files, journal: group.journal, docker: group.docker,
		syslog: group.syslog, stdin: group.stdin, streams: map[string]*stream{},
	}
	r.spec.JournalDirs = d.o.JournalDirs
	const wordBits = 64
	none := []string{"\x00"} // stands in no line
	var literals [][]string
	for i, j := range r.jails {
		r.all = append(r.all, i)
		r.offsets = append(r.offsets, len(literals)/wordBits)
		r.multiline = r.multiline || j.filter.MaxLines() > 1
		literals = append(literals, j.filter.Literals()...)
		for len(literals)%wordBits != 0 {
			literals = append(literals, none)
		}
	}
	r.offsets = append(r.offsets, len(literals)/wordBits)
	r.scanner = pattern.NewScanner(literals)
	r.cands = make([]uint64, r.scanner.Words())
	return r
}

// mine picks what of a saved position a spec reads.
func mine(p source.Position, spec source.Spec) source.Position {
	out := source.Position{Time: p.Time, Journal: p.Journal, Docker: p.Docker}
	for _, f := range p.Files {
		if slices.ContainsFunc(spec.Files, func(glob string) bool {
			ok, err := filepath.Match(glob, f.Path)
			return glob == f.Path || ok && err == nil
		}) {
			out.Files = append(out.Files, f)
		}
	}
	return out
}

func (r *reader) run(ctx context.Context) error {
	return r.source.Run(ctx, func(l source.Line) error {
		r.handle(ctx, l)
		return nil
	})
}

// noteCaughtUp remembers that what was written before Run has been read: from
// then on a date that is far from the clock is a wrong one.
func (r *reader) noteCaughtUp() {
	if r.caught.Load() {
		return
	}
	for _, s := range r.source.Status().Streams {
		if s.Backlog > 0 {
			return
		}
	}
	r.caught.Store(true)
}

// handle looks at one line. It never fails: what a line holds must not stop
// its source.
func (r *reader) handle(ctx context.Context, l source.Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.text(l)
	if !r.scanner.Scan(text, r.cands) && !r.multiline {
		r.missed.Add(1)
		return
	}
	var st *stream
	result := &r.missed
	for _, i := range r.wanted(l) {
		c := filter.Candidates(r.cands[r.offsets[i]:r.offsets[i+1]])
		promising := slices.ContainsFunc(c, func(w uint64) bool { return w != 0 })
		multiline := r.jails[i].filter.MaxLines() > 1
		if !promising && !multiline {
			continue
		}
		if st == nil {
			st = r.stream(l.Stream)
		}
		if multiline {
			if !promising && st.followers[i].Skip(text, l.Time) {
				continue
			}
			if promising {
				st.followers[i].CatchUp()
			}
			c = nil // what is looked for may stand in a line before
		}
		switch r.look(ctx, i, st, l, text, c) {
		case lineMatched:
			result = &r.matched
		case lineIgnored:
			if result == &r.missed {
				result = &r.ignored
			}
		}
	}
	result.Add(1)
}

type verdict int

const (
	lineMissed verdict = iota
	lineMatched
	lineIgnored
)

// text is the line as fail2ban's filters see it: "HOST TAG[PID]: MESSAGE"
// where the source tells these apart from the message.
func (r *reader) text(l source.Line) []byte {
	if l.Tag == "" || !l.Journal && !received(l.Stream) {
		return l.Text
	}
	b := append(r.prefix[:0], l.Host...)
	if l.Host != "" {
		b = append(b, ' ')
	}
	b = append(b, l.Tag...)
	if l.PID > 0 {
		b = append(b, '[')
		b = strconv.AppendInt(b, int64(l.PID), 10)
		b = append(b, ']')
	}
	b = append(b, ": "...)
	b = append(b, l.Text...)
	r.prefix = b
	return b
}

// received says that a stream's lines came as syslog messages.
func received(stream string) bool {
	return strings.HasPrefix(stream, "udp:") || strings.HasPrefix(stream, "tcp:")
}

// wanted gives the jails that want a line.
func (r *reader) wanted(l source.Line) []int {
	table := r.files
	switch {
	case l.Stream == "stdin" && r.stdin != nil:
		return r.stdin
	case len(l.Matched) == 0:
		return r.all // a replay's line, or one that a person asks about
	case l.Journal:
		table = r.journal
	case strings.HasPrefix(l.Stream, "docker:"):
		table = r.docker
	case received(l.Stream):
		table = r.syslog
	}
	if len(l.Matched) == 1 && l.Matched[0] < len(table) {
		return table[l.Matched[0]]
	}
	var out []int
	for _, m := range l.Matched {
		if m < len(table) {
			out = append(out, table[m]...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *reader) stream(name string) *stream {
	if st := r.streams[name]; st != nil {
		return st
	}
	if len(r.streams) >= maxStreams {
		clear(r.streams)
	}
	st := &stream{}
	for _, j := range r.jails {
		f, err := j.filter.Follow(dates.Options{Now: r.d.o.Now, Zone: j.def.Detect.Timezone})
		if err != nil {
			panic(err) // the zone was checked when the jail was made
		}
		st.followers = append(st.followers, f)
	}
	r.streams[name] = st
	return st
}

// look lets jail i judge a line.
func (r *reader) look(ctx context.Context, i int, st *stream, l source.Line, text []byte, c filter.Candidates) verdict {
	j := r.jails[i]
	now := r.d.o.Now()
	f := st.followers[i]
	rest := f.Cut(text, l.Time)
	at := f.At
	// What is sent here is written now; a log may hold the past.
	live := r.caught.Load() || l.Stream == "stdin" || received(l.Stream)
	if at.IsZero() {
		if !live {
			return lineMissed // of unknown age, from before this node looked
		}
		at = now
	}
	if live {
		if delta := at.Sub(now); delta > oddTime || delta < -oddTime {
			at = now
		}
	} else if at.Before(now.Add(-j.window.findTime)) && j.window.findTime != permanent {
		return lineMissed // written long before this node looked
	}
	if at.After(now) {
		at = now
	}
	result := lineMissed
	f.OnIgnore = func(int) { result = lineIgnored }
	matches := f.Process(rest, f.Date, at, c)
	for k := range matches {
		result = lineMatched
		r.offence(ctx, j, &matches[k], l, at)
	}
	return result
}

// offence counts a match and decides.
func (r *reader) offence(ctx context.Context, j *jail, m *filter.Match, l source.Line, at time.Time) {
	meaning := j.rules[m.Rule]
	id := m.ID
	if m.Address != "" {
		id = m.Address
	}
	var targets []ban.Target
	switch {
	case m.Named && j.useDNS:
		targets = r.d.resolve(ctx, id)
	default:
		t, ok := targetOf(id)
		if !ok || insideAnother(m.Text, m.From, m.From+len(id)) {
			return
		}
		targets = []ban.Target{t}
	}
	for _, t := range targets {
		o := offence{target: t, class: meaning.class, weight: meaning.weight, established: meaning.established && !l.Spoofable, at: at}
		// IPv6 counts by /64, and the kernel knows single addresses.
		if o.addr, _ = netip.ParseAddr(id); !o.addr.IsValid() {
			if p, ok := t.Prefix(); ok && p.IsSingleIP() {
				o.addr = p.Addr()
			}
		}
		r.d.count(ctx, j, o, func() (filter, source, text string) {
			return j.filter.Name + ":" + strconv.Itoa(m.Rule+1), l.Stream, sample(m)
		})
	}
}

// conclude fills in a decision about e's target and stops counting it. It says
// whether the ban that is decided is in force still.
func (j *jail) conclude(v *Decision, e *entry, now time.Time) bool {
	v.Topic, v.Target, v.Hits, v.Established = j.topic, e.target, max(1, int(math.Round(e.hits))), e.established
	v.First, v.Last = time.Unix(0, e.first).UTC(), time.Unix(0, e.last).UTC()
	v.End = j.end(e.target, v.Last)
	j.window.remove(e.target)
	if !v.End.After(now) {
		return false
	}
	j.counts.banned++
	return true
}

// recur counts a decision in the topics that look for who is banned again and
// again.
func (d *Detector) recur(ctx context.Context, v Decision) {
	for _, j := range d.jails {
		if !j.def.Detect.Decisions || j.topic == v.Topic || v.Class == ban.ClassRecidive || j.ignore.holds(v.Target) {
			continue
		}
		again := Decision{Class: ban.ClassRecidive, Filter: string(j.topic), Source: "topic " + string(v.Topic), Sample: v.Sample}
		j.mu.Lock()
		j.counts.found++
		e := j.window.add(v.Target, v.Last, 1, v.Established)
		ok := e.hits >= j.window.limit && j.conclude(&again, e, d.o.Now())
		j.mu.Unlock()
		if ok && !j.simulate {
			d.decide(ctx, again)
		}
	}
}

// end says when a ban made now ends, and remembers it for the next one.
func (j *jail) end(t ban.Target, last time.Time) time.Time {
	count := 0
	if j.def.Detect.Increment.Enabled {
		count = j.bans[t].Count
	}
	d := j.banTime(count)
	end := farEnd
	if d != permanent && last.Add(d).Before(farEnd) {
		end = last.Add(d)
	}
	if j.def.Detect.Increment.Enabled {
		j.bans[t] = banCount{count + 1, end}
	}
	return end
}

// maxSample bounds the evidence that a decision carries.
const maxSample = 300

func sample(m *filter.Match) string {
	text := m.Text
	if len(m.Lines) > 0 {
		text = m.Lines[len(m.Lines)-1]
	}
	text = strings.TrimSuffix(text, "\n")
	if len(text) > maxSample {
		text = text[:maxSample]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
