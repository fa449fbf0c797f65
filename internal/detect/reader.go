package detect

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/bits"
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
	"banmesh/topics"
)

// oddTime is how far a live line's date may be from the clock before the line
// counts as just written, as in fail2ban: a wrong time zone must not hide an
// attack.
const oddTime = time.Minute

// maxStreams bounds the streams that are remembered at a time.
const maxStreams = 4096

// A reader reads one source for all jails that share it: each line is scanned
// once for the literals of all their expressions.
type reader struct {
	d      *Detector
	spec   source.Spec
	source source.Source
	jails  []*jail
	// The scanner has a group for each jail.
	scanner *pattern.Scanner
	hits    *pattern.Hits
	// multiline are the jails that match several lines together.
	multiline jailSet
	joins     bool // there are some
	tainting  jailSet
	taints    bool // there are some that know lines after which none is believed
	// wants maps entries of the spec to jails.
	files, journal, docker, syslog []jailSet
	stdin, all                     jailSet
	containers                     []bool // journal entries of containers alone

	mu      sync.Mutex // held while a line is handled
	streams map[string]*stream
	prefix  []byte
	plain   []byte // room for a line without colours
	fresh   bool   // no position says which lines were read before
	past    *past  // lines are of a log of the past, and the clock says nothing
	line    lineView
	some    jailSet  // room for the jails of several entries
	passed  bool     // an ignoreregex matched
	user    struct { // of the last offence
		name    string
		account Account
	}
	// odd is how far the last line's date was from the clock, where it was not believed.
	odd     time.Duration
	caught  atomic.Bool // the backlog has been read
	matched atomic.Uint64
	ignored atomic.Uint64
	missed  atomic.Uint64
	logs    readerLogs
}

// A stream is one log's state in each jail.
type stream struct {
	followers []*filter.Follower
	// usual finds dates for all jails that look for the usual ones first, and
	// shares[i] says that jail i is one of them.
	usual  *dates.Usual
	shares []bool
	taints []taint // by jail
}

// A lineView is the part of the line at hand that jails have in common.
type lineView struct {
	now   time.Time
	tried bool // the usual forms of dates
	dated bool
	found dates.Found
	date  string
	// text is the line without its date, where that was found or the source
	// told it.
	text filter.Text
}

func (v *lineView) begin(now time.Time) { v.now, v.tried, v.dated = now, false, false }

// find says that the line begins with a date of the usual forms. usual may be nil.
func (v *lineView) find(usual *dates.Usual, line []byte) bool {
	if !v.tried && usual != nil {
		v.tried = true
		if v.found, v.date, v.dated = usual.Find(line, v.now); v.dated {
			v.text.Set(line[v.found.To:])
		}
	}
	return v.dated
}

// A jailSet is a set of a reader's jails, as bits.
type jailSet []uint64

func newJailSet(n int, indexes ...int) jailSet {
	s := make(jailSet, (n+63)/64)
	for _, i := range indexes {
		s.add(i)
	}
	return s
}

func (s jailSet) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s jailSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s jailSet) join(other jailSet) {
	for i, w := range other {
		s[i] |= w
	}
}

// newReaders groups jails by the logs that they share and opens a source for
// each group.
func newReaders(d *Detector, resume source.Position) ([]*reader, error) {
	var out []*reader
	for _, group := range groups(d.jails, journalPresent(d.o.JournalDirs)) {
		r := newReader(d, group)
		var err error
		at := mine(resume, r.spec)
		r.fresh = d.o.Source.Start != source.StartBeginning && len(at.Files) == 0 && len(at.Docker) == 0
		if r.source, err = source.Open(r.spec, at, d.startOf(group)); err != nil {
			return nil, fmt.Errorf("watching %s: %w", group.jails[0].topic, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// startOf gives the options of a group's source: where its logs begin that were not read
// before.
func (d *Detector) startOf(g *readerGroup) source.Options {
	o := d.o.Source
	if o.Start == source.StartBeginning {
		return o // all is asked for
	}
	switch since, end, err := topics.StartAt(g.start(), d.o.Now()); {
	case err != nil: // Parse refused it
	case end:
		o.Start = source.StartEnd
	case !since.IsZero():
		o.Start, o.Since = source.StartSince, since
	}
	return o
}

// newReader builds the scanner of a group's jails.
func newReader(d *Detector, group *readerGroup) *reader {
	n := len(group.jails)
	sets := func(entries [][]int) []jailSet {
		var out []jailSet
		for _, indexes := range entries {
			out = append(out, newJailSet(n, indexes...))
		}
		return out
	}
	r := &reader{
		d: d, jails: group.jails, spec: group.spec, files: sets(group.files), journal: sets(group.journal), docker: sets(group.docker),
		syslog: sets(group.syslog), streams: map[string]*stream{}, multiline: newJailSet(n), all: newJailSet(n), some: newJailSet(n),
		tainting: newJailSet(n), containers: containersAlone(group.spec),
	}
	if group.stdin != nil {
		r.stdin = newJailSet(n, group.stdin...)
	}
	if !r.spec.OwnJournal() {
		r.spec.JournalDirs = d.o.JournalDirs
	}
	var literals []pattern.Group
	for i, j := range r.jails {
		r.all.add(i)
		if j.filter.MaxLines() > 1 {
			r.multiline.add(i)
			r.joins = true
		}
		if j.filter.Taints() {
			r.tainting.add(i)
			r.taints = true
		}
		literals = append(literals, pattern.Group{Literals: j.filter.Literals(), Gate: j.filter.Gate()})
	}
	r.scanner = pattern.NewScanner(literals)
	r.hits = r.scanner.NewHits()
	r.beginLogs(d.o.Before)
	return r
}

// mine picks the parts of a saved position that a spec reads.
func mine(p source.Position, spec source.Spec) source.Position {
	out := source.Position{Time: p.Time, Docker: p.Docker}
	for _, j := range p.Journal {
		if j.Of == spec.JournalKey() {
			out.Journal = append(out.Journal, j)
		}
	}
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

// noteCaughtUp remembers that the lines from before Run have been read: from
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

// handle looks at one line. It never fails: a line's content must not stop
// its source.
func (r *reader) handle(ctx context.Context, l source.Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := r.text(&l)
	promising := r.scanner.Scan(text, r.hits)
	if !promising && !r.taints && !r.joins {
		r.missed.Add(1)
		r.noteLine(&l, lineMissed)
		return
	}
	var st *stream
	if r.taints && !promising {
		r.countDoubted(&l)
	}
	result := lineMissed
	if promising || r.joins {
		wanted := r.wanted(&l)
		for word, found := range r.hits.Found() {
			for left := (found | r.multiline[word]) & wanted[word]; left != 0; left &= left - 1 {
				i := word*64 + bits.TrailingZeros64(left)
				if st == nil {
					st = r.begin(&l, text)
				}
				var c filter.Candidates // nil: the text may stand in a line before
				if !r.multiline.has(i) {
					c = r.hits.Candidates(i)
				} else if !r.catchUp(st.followers[i], found&(1<<(i%64)) != 0, text, l.Time) {
					continue
				}
				switch r.look(ctx, i, st, &l, text, c) {
				case lineMatched:
					result = lineMatched
				case lineIgnored:
					if result == lineMissed {
						result = lineIgnored
					}
				}
			}
		}
	}
	switch result {
	case lineMatched:
		r.matched.Add(1)
	case lineIgnored:
		r.ignored.Add(1)
	default:
		r.missed.Add(1)
	}
	r.noteLine(&l, result)
}

// begin prepares the parts of a line that jails share. A line of the past sets the clock
// that the others see.
func (r *reader) begin(l *source.Line, text []byte) *stream {
	st := r.stream(l.Stream)
	if r.past == nil {
		r.line.begin(r.d.o.Now())
		return st
	}
	r.line.begin(r.past.at)
	found := r.line.find(st.usual, text)
	written := r.line.found.Time
	if !found {
		written = r.past.dates.Find(text).Time
	}
	if written.IsZero() {
		written = r.stated(st, text)
	}
	r.line.now = r.past.advance(written)
	return st
}

// countDoubted lets a line that no jail looks at count among those that follow
// a client's line break.
func (r *reader) countDoubted(l *source.Line) {
	st := r.streams[l.Stream]
	if st == nil {
		return
	}
	for i := range st.taints {
		if st.taints[i].lines > 0 {
			st.taints[i].covers(l.PID, r.d.o.Now(), r.live(l))
		}
	}
}

// live says that a line is written now; a log may hold the past, but what is
// sent here does not.
func (r *reader) live(l *source.Line) bool {
	return (r.caught.Load() || l.Stream == "stdin" || received(l.Stream)) && r.past == nil
}

// catchUp prepares a jail that matches several lines together for a line, and
// says whether that must be looked at.
func (r *reader) catchUp(f *filter.Follower, promising bool, text []byte, at time.Time) bool {
	if promising {
		f.CatchUp()
		return true
	}
	return !f.Skip(text, at)
}

type verdict int

const (
	lineMissed verdict = iota
	lineMatched
	lineIgnored
)

// containersAlone says of each journal entry of a spec whether it names containers and
// nothing else.
func containersAlone(spec source.Spec) (out []bool) {
	for _, match := range spec.Journal {
		out = append(out, strings.Contains(match, "CONTAINER_NAME=") && !strings.Contains(match, "+"))
	}
	return out
}

// bare says that a container wrote the line into the journal: it is the message alone, as
// in Docker's own logs. One that another entry wants, too, might pretend a program's prefix.
func (r *reader) bare(l *source.Line) bool {
	for _, i := range l.Matched {
		if i >= len(r.containers) || !r.containers[i] {
			return false
		}
	}
	return l.Journal && len(l.Matched) > 0
}

// text is the line as fail2ban's filters see it: "HOST TAG[PID]: MESSAGE"
// where the source tells these apart from the message.
func (r *reader) text(l *source.Line) []byte {
	if l.Tag == "" || !l.Journal && !received(l.Stream) || r.bare(l) {
		if cap(r.plain) < 2*len(l.Text)+2 {
			r.plain = make([]byte, 0, 2*len(l.Text)+64)
		}
		return plain(l.Text, r.plain)
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
	message := l.Text
	if bytes.IndexByte(message, escape) >= 0 {
		message = uncoloured(message, nil)
	}
	b = append(b, unzoned(message, nil)...)
	r.prefix = b
	return b
}

// received says that a stream's lines came as syslog messages.
func received(stream string) bool {
	return strings.HasPrefix(stream, "udp:") || strings.HasPrefix(stream, "tcp:")
}

// wanted gives the jails that want a line.
func (r *reader) wanted(l *source.Line) jailSet {
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
	clear(r.some)
	for _, m := range l.Matched {
		if m < len(table) {
			r.some.join(table[m])
		}
	}
	return r.some
}

// fromElsewhere says that a stream's lines may be of another machine: they came
// as syslog messages, and not over loopback.
func fromElsewhere(stream string) bool {
	if !received(stream) {
		return false
	}
	at, err := netip.ParseAddrPort(stream[len("udp:"):])
	return err != nil || !at.Addr().IsLoopback()
}

func (r *reader) stream(name string) *stream {
	if st := r.streams[name]; st != nil {
		return st
	}
	if len(r.streams) >= maxStreams {
		clear(r.streams)
	}
	st := &stream{}
	clock := func() time.Time { return r.line.now }
	for _, j := range r.jails {
		f, err := j.filter.Follow(dates.Options{Now: clock, Zone: j.def.Detect.Timezone})
		if err != nil {
			panic(err) // the zone was checked when the jail was made
		}
		f.OnIgnore = func(int) { r.passed = true }
		st.followers = append(st.followers, f)
		usual := f.Dates.Usual()
		if !j.filter.Shares() {
			usual = nil
		}
		if st.usual == nil {
			st.usual = usual
		}
		st.shares = append(st.shares, usual != nil && usual.Alike(st.usual))
	}
	st.taints = make([]taint, len(r.jails))
	r.streams[name] = st
	return st
}

// cut finds out when the line was written, as jail i sees it. text is the part that its
// expressions see.
func (r *reader) cut(i int, st *stream, l *source.Line, line []byte) (text *filter.Text) {
	f, v := st.followers[i], &r.line
	switch {
	case !l.Time.IsZero():
		if !v.dated {
			v.dated = true
			v.text.Set(line)
		}
		f.Cut(line, l.Time)
		return &v.text
	case st.shares[i] && f.Dates.Fast():
		if v.find(st.usual, line) {
			f.Take(v.found, v.date, line)
			return &v.text
		}
	}
	return f.Prepare(f.Cut(line, l.Time))
}

// look lets jail i judge a line.
func (r *reader) look(ctx context.Context, i int, st *stream, l *source.Line, text []byte, c filter.Candidates) verdict {
	j, now := r.jails[i], r.line.now
	f := st.followers[i]
	doubted := false
	if r.tainting.has(i) {
		doubted = st.taints[i].covers(l.PID, now, r.live(l))
		if j.filter.Tainted(text, c) {
			st.taints[i] = newTaint(l.PID, now)
			return lineMissed
		}
	}
	rest := r.cut(i, st, l, text)
	if !r.hits.Open(i) {
		return lineMissed
	}
	at := f.At
	live := r.caught.Load() || l.Stream == "stdin" || received(l.Stream)
	r.odd = 0
	if at.IsZero() || f.Dateless && r.fresh {
		if !live {
			return lineMissed // of unknown age, from before this node looked
		}
		at = now
	}
	if live {
		if delta := at.Sub(now); delta > oddTime || delta < -oddTime {
			at, r.odd = now, delta
		}
	} else if at.Before(now.Add(-j.window.findTime)) && j.window.findTime != permanent {
		return lineMissed // written long before this node looked
	}
	if at.After(now) {
		if delta := at.Sub(now); delta > oddTime {
			r.odd = delta
		}
		at = now
	}
	r.passed = false
	matches := f.Judge(rest, f.Date, at, c)
	for k := range matches {
		switch m := &matches[k]; {
		case m.Success && !doubted:
			r.success(ctx, j, m, l, at)
		case !m.Success:
			r.offence(ctx, j, m, l, at, doubted)
		}
	}
	switch {
	case len(matches) > 0:
		return lineMatched
	case r.passed:
		return lineIgnored
	}
	return lineMissed
}

// offence counts a match and decides.
func (r *reader) offence(ctx context.Context, j *jail, m *filter.Match, l *source.Line, at time.Time, tainted bool) {
	meaning := j.rules[m.Rule]
	id := m.ID
	if m.Address != "" {
		id = m.Address
	}
	blame := func(t ban.Target, addr netip.Addr) {
		o := offence{
			target: t, addr: addr, port: portOf(m.Fields), class: meaning.class, weight: meaning.weight * repeated(m.Fields), weak: meaning.weak,
			tainted: tainted, spoofable: l.Spoofable, elsewhere: fromElsewhere(l.Stream), at: at, odd: r.odd,
		}
		if meaning.twin {
			o.twin = meaning.rule + 1
		}
		if user, ok := m.Fields.Get("user"); ok && len(j.def.Detect.Success) > 0 {
			if user != r.user.name {
				r.user.name, r.user.account = strings.Clone(user), AccountOf(user)
			}
			o.account = r.user.account // a login may forgive it
		}
		_ = r.d.count(ctx, j, o, func() (filter, source, text string) {
			return j.filter.Name + ":" + strconv.Itoa(m.Rule+1), l.Stream, sample(m)
		})
	}
	if !m.Named || !j.useDNS {
		// IPv6 counts by /64, and the kernel knows single addresses.
		if t, addr, ok := targetOf(id); ok && !insideAnother(m.Text, m.From, m.From+len(id)) {
			blame(t, addr)
		}
		return
	}
	// The answer may come after the line is gone.
	from, log, text, port := j.filter.Name+":"+strconv.Itoa(m.Rule+1)+" (by name)", l.Stream, sample(m), portOf(m.Fields)
	o := offence{
		port: port, class: meaning.class, weight: meaning.weight * repeated(m.Fields), weak: true, named: true,
		tainted: tainted, spoofable: l.Spoofable, elsewhere: fromElsewhere(l.Stream), at: at, odd: r.odd,
	}
	r.d.named(ctx, strings.Clone(id), func(ctx context.Context, addr netip.Addr) {
		if t, _, ok := targetOf(addr.String()); ok {
			o := o
			o.target, o.addr = t, addr
			_ = r.d.count(ctx, j, o, func() (string, string, string) { return from, log, text })
		}
	})
}

// portOf reads the client's port that a match captured, 0 for none.
func portOf(f filter.Fields) uint16 {
	text, _ := f.Get("fport")
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// maxRepeated bounds how often one line can say that it stood there.
const maxRepeated = 100

// repeated tells how many lines one stands for: "message repeated 3 times".
func repeated(f filter.Fields) float64 {
	text, ok := f.Get("repeated")
	if !ok {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 1
	}
	return float64(min(max(n, 1), maxRepeated))
}

// success tells of a login, and takes back the failures of the same account.
func (r *reader) success(ctx context.Context, j *jail, m *filter.Match, l *source.Line, at time.Time) {
	id := m.ID
	if m.Address != "" {
		id = m.Address
	}
	t, addr, ok := targetOf(id)
	if !ok || m.Named || l.Spoofable || insideAnother(m.Text, m.From, m.From+len(id)) {
		return
	}
	user, _ := m.Fields.Get("user")
	r.d.succeed(ctx, j, t, Success{Topic: j.topic, Addr: addr, Port: portOf(m.Fields), Account: AccountOf(user), At: at})
}

// conclude fills in a decision about e's target and stops counting it. It says
// whether the ban that is decided is in force still.
func (j *jail) conclude(v *Decision, e *entry, now time.Time) bool {
	v.Topic, v.Target, v.Hits, v.Established = j.topic, e.target, max(1, int(math.Round(e.hits))), e.established || e.sure > j.window.limit-1e-6
	v.Weak = e.hits-e.weak < min(j.window.limit, e.hits)-1e-6
	v.Named = e.known().named
	v.First, v.Last = time.Unix(0, e.first()).UTC(), time.Unix(0, e.last).UTC()
	v.End = j.end(e.target, v.First, v.Last)
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
		banned := d.banned(j, v.Target, v.Last)
		j.mu.Lock()
		j.counts.found++
		ok := false
		if !banned && !j.decided(v.Target, v.Last) && !j.echoed(v.Target, v.Last, true) {
			e := j.window.add(v.Target, v.Last, 1, v.Established)
			ok = e.reaches(j.window.limit) && j.conclude(&again, e, d.o.Now())
		}
		j.mu.Unlock()
		if ok && !j.simulate {
			d.decide(ctx, j, again)
		}
	}
}

// end says when a ban made now ends, and remembers it for the next one.
func (j *jail) end(t ban.Target, first, last time.Time) time.Time {
	b := banCount{From: first, Last: last}
	if j.def.Detect.Increment.Enabled {
		b.Count = j.bans[t].Count
	}
	d := j.banTime(b.Count)
	b.End = farEnd
	if d != permanent && last.Add(d).Before(farEnd) {
		b.End = last.Add(d)
	}
	if j.def.Detect.Increment.Enabled {
		b.Count++
	}
	j.bans[t] = b
	j.banChanged(t)
	return b.End
}

// decided says that an offence at a time is one of those for which the jail
// decided already to ban a target, or came while a ban was in force of which the
// jail alone knows.
func (j *jail) decided(t ban.Target, at time.Time) bool {
	b, ok := j.bans[t]
	if !ok || b.From.IsZero() || at.Before(b.From) {
		return false
	}
	return !at.After(b.Last) || !b.Recorded && at.Before(b.End)
}

// recorded says that others know of the newest decision about a target.
func (j *jail) recorded(t ban.Target) {
	if b, ok := j.bans[t]; ok && !b.Recorded {
		b.Recorded = true
		j.bans[t] = b
		j.banChanged(t)
	}
}

// forgive keeps of the decisions about a target how many there were.
func (j *jail) forgive(t ban.Target) {
	b, ok := j.bans[t]
	switch {
	case !ok:
	case j.def.Detect.Increment.Enabled:
		j.bans[t] = banCount{Count: b.Count, End: b.End}
		j.banChanged(t)
	default:
		j.forget(t)
	}
}

// banned says that this node's own ban of a target was in force at a time.
func (d *Detector) banned(j *jail, t ban.Target, at time.Time) bool {
	return d.o.Banned != nil && d.o.Banned(j.topic, t, at)
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
