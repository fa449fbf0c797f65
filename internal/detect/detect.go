// Package detect turns log lines into decisions to ban: it reads the logs of
// every topic, finds offenders with filters in fail2ban's language, counts
// their offences in windows, and says who has had enough.
//
// Positions in the logs and counters are saved together, in one file that is
// replaced atomically: across a clean restart every line counts exactly once,
// after a crash at least once.
package detect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/ban"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/fields"
	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// A Decision is that a target is banned in a topic. All of it but Sample,
// Filter and Source may leave the node; those never do.
type Decision struct {
	Topic  ban.Topic  `json:"topic"`
	Target ban.Target `json:"target"`
	// Class is that of the newest offence.
	Class ban.Class `json:"class"`
	// Hits is how many offences were counted, at least 1.
	Hits int `json:"hits"`
	// Established says that each of them came over an established connection.
	Established bool `json:"established"`
	// Weak says that it took offences that honest clients make too.
	Weak bool `json:"weak,omitempty"`
	// Guest says that the target is a guest, so that it took more.
	Guest bool `json:"guest,omitempty"`
	// Watched says that others warned of the target, so that it took fewer. Port is
	// the client's in the last offence's line, 0 where it names none.
	Watched bool   `json:"watched,omitempty"`
	Port    uint16 `json:"port,omitempty"`
	// Named says that the log names the target by a host name: such a decision is
	// for this node alone.
	Named bool `json:"named,omitempty"`
	// First and Last are the times of the offences, End that of the ban.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	End   time.Time `json:"end"`
	// Filter names the filter and the rule, Source the log, Sample the line.
	Filter string `json:"filter"`
	Source string `json:"source"`
	Sample string `json:"sample"`
}

// A Jail is a topic that this node watches.
type Jail struct {
	// Definition with the node's own changes laid over it. Its Detect must
	// not be nil.
	Definition *topics.Definition
	// Simulate finds and counts, and decides nothing.
	Simulate bool
}

// Options are a detector's surroundings. Jails and Ban are required.
type Options struct {
	Jails []Jail
	// StatePath is the file that positions and counters are saved in; "" saves
	// nothing.
	StatePath string
	// Ban carries a decision out. Where it fails the decision is kept, saved
	// with the state and offered again, until it succeeds or has expired.
	Ban func(context.Context, Decision) error
	// Flush makes durable the bans that Ban carried out. It is called before positions are
	// saved, so that no line counts as read whose ban is lost; nil has nothing to do.
	Flush func() error
	// Watched says that one offence of a target is enough: others said so.
	Watched func(ban.Topic, ban.Target) bool
	// Banned says that this node's own ban of a target was in force at a time. May
	// be nil.
	Banned func(ban.Topic, ban.Target, time.Time) bool
	// Sighted is told of offences that are not enough for a decision: of a
	// target's first, second, fourth and so on. Those of guests, and those that
	// honest clients make too, are left out. It must not block; nil if nobody
	// wants to know.
	Sighted func(Sighting)
	// Suspected says that two offences of a target are enough.
	Suspected func(ban.Topic, ban.Target) bool
	// Corroborated says whether the kernel saw the connection that a line is
	// about. Only what it confirms is strong evidence; where it is nil every
	// line counts, as one that nobody can be asked about.
	Corroborated func(context.Context, Question) Proof
	// Success is told about logins that lines of definitions with success
	// expressions prove, judged as offences are. It must not block; nil drops
	// them.
	Success func(context.Context, Success)
	// Guest says that a target lately logged in or did work here: weak
	// offences of it count for nothing, and it takes more strong ones
	// to ban it ([topics.Detect].GuestMaxRetry). nil knows no guests.
	Guest func(ban.Topic, ban.Target) bool
	// Ignored says that a target is never an offender.
	Ignored func(ban.Target) bool
	// Noticed is told of every offence that is believed, and of those of targets
	// that Ignored names. It must not block for long; nil if nobody wants to know.
	Noticed func(context.Context, Notice)
	// Addresses gives those that a name in a definition's IgnoreIP has or last had. It
	// must not block; nil knows none.
	Addresses func(name string) []netip.Addr
	// Resolve gives a host name's addresses, for definitions with UseDNS; nil
	// asks this machine's resolver.
	Resolve func(context.Context, string) ([]string, error)
	// Reverse gives an address's names, for the same; nil asks the same.
	Reverse func(context.Context, string) ([]string, error)
	// Fail2banDir is where filters of definitions that name one are; "" is
	// /etc/fail2ban.
	Fail2banDir string
	// JournalDirs are where the journal's files are; empty means this system's
	// places.
	JournalDirs []string
	// Source is passed to every source; Log and Now are filled in.
	Source source.Options
	// Before are the counters that the detector of before left.
	Before LogCounts
	// MaxTracked bounds the targets that are counted at a time, per detector;
	// 0 is [DefaultMaxTracked].
	MaxTracked int
	Now        func() time.Time
	Log        *slog.Logger
}

// guestLimit is how many offences ban a guest: five where three ban a stranger,
// unless the definition says otherwise, and never fewer than of a stranger.
func guestLimit(d *topics.Detect) float64 {
	if d.GuestMaxRetry > 0 {
		return float64(max(d.GuestMaxRetry, d.MaxRetry))
	}
	return math.Ceil(float64(d.MaxRetry) * 5 / 3)
}

// saveEvery is how often the state is saved, at most.
const saveEvery = time.Second

// ErrState says that the state file cannot be used.
var ErrState = errors.New("the detection state is unusable")

// A Detector watches logs. Make one with [New].
type Detector struct {
	o       Options
	jails   []*jail
	readers []*reader
	tracked *budget
	names   nameCache
	// coarse is the time, in nanoseconds since the Unix epoch, as of the last round
	// of keep.
	coarse atomic.Int64

	pendingMu sync.Mutex
	pending   map[pendingKey]Decision

	saveMu sync.Mutex
	file   stateFile
	saves  saveFault
}

type pendingKey struct {
	topic  ban.Topic
	target ban.Target
}

// New compiles every jail's filter, reports all faults at once, and reads the
// saved state. It opens no log.
func New(o Options) (*Detector, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Source.Log, o.Source.Now = o.Log, o.Now
	d, err := prepare(o)
	if err != nil {
		return nil, err
	}
	var at source.Position
	if err := loadState(o.StatePath, func(batch []record) { at = d.restore(batch) }); err != nil {
		return nil, err
	}
	if err := d.lookBack(); err != nil {
		return nil, err
	}
	d.readers, err = newReaders(d, at)
	return d, err
}

// prepare compiles the jails and opens nothing.
func prepare(o Options) (*Detector, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxTracked == 0 {
		o.MaxTracked = DefaultMaxTracked
	}
	d := &Detector{o: o, pending: map[pendingKey]Decision{}, tracked: &budget{}, file: stateFile{path: o.StatePath}}
	d.tracked.left.Store(int64(o.MaxTracked))
	if o.Now != nil {
		d.coarse.Store(o.Now().UnixNano())
	}
	var faults []error
	for _, j := range o.Jails {
		built, err := newJail(j, &d.o, d.tracked)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		d.jails = append(d.jails, built)
	}
	return d, errors.Join(faults...)
}

// maxLookBack bounds how far a first start reads back.
const maxLookBack = 24 * time.Hour

// lookBack makes a first start read lines that still count: an attack that is going
// on when the agent is installed is seen from its beginning.
func (d *Detector) lookBack() error {
	if d.o.Source.Start != source.StartEnd {
		return nil
	}
	longest := time.Duration(0)
	for _, j := range d.jails {
		longest = max(longest, min(j.window.findTime, maxLookBack))
	}
	set, err := dates.Compile(nil, d.o.Now())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	finder, err := set.New(dates.Options{Now: d.o.Now})
	if err != nil {
		return err
	}
	d.o.Source.Start, d.o.Source.Since = source.StartSince, d.o.Now().Add(-longest)
	d.o.Source.LineTime = func(text []byte) (time.Time, bool) {
		mu.Lock()
		defer mu.Unlock()
		f := finder.Find(text)
		return f.Time, !f.Time.IsZero()
	}
	return nil
}

// Run reads until ctx ends, then saves the state. A source that fails ends it
// with an error.
func (d *Detector) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	endNames := d.lookUp(ctx)
	for _, r := range d.readers {
		group.Go(func() error { return r.run(running) })
	}
	read := make(chan struct{})
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		d.keep(running, read)
	}()
	err := group.Wait() // with Source.Once, sources end by themselves
	endNames()
	close(read)
	<-kept
	if len(d.readers) == 0 {
		<-ctx.Done()
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, d.Save())
}

// keep saves the state and lets go of old entries, again and again until all
// is read.
func (d *Detector) keep(ctx context.Context, read <-chan struct{}) {
	wait := saveEvery
	for {
		timer := time.NewTimer(wait)
		select {
		case <-read:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		d.coarse.Store(d.o.Now().UnixNano())
		for _, r := range d.readers {
			r.noteCaughtUp()
		}
		d.offerPending(ctx)
		d.sweep()
		started := time.Now()
		_ = d.Save() // told and kept by saves
		// A large state is saved less often: at most a twentieth of the time.
		wait = max(saveEvery, 20*time.Since(started))
	}
}

// decide carries a decision out, or keeps it.
func (d *Detector) decide(ctx context.Context, j *jail, v Decision) {
	err := d.o.Ban(ctx, v)
	if err == nil {
		if d.o.Banned != nil {
			j.mu.Lock()
			j.recorded(v.Target)
			j.mu.Unlock()
		}
		return
	}
	d.o.Log.Warn("a ban is kept for later", "topic", v.Topic, "target", v.Target, "error", err)
	d.pendingMu.Lock()
	d.pending[pendingKey{v.Topic, v.Target}] = v
	d.pendingMu.Unlock()
}

// offerPending offers kept decisions again.
func (d *Detector) offerPending(ctx context.Context) {
	d.pendingMu.Lock()
	kept := make([]Decision, 0, len(d.pending))
	for _, v := range d.pending {
		kept = append(kept, v)
	}
	d.pendingMu.Unlock()
	for _, v := range kept {
		if ctx.Err() != nil {
			return
		}
		if v.End.After(d.o.Now()) && d.o.Ban(ctx, v) != nil {
			continue
		}
		d.pendingMu.Lock()
		if key := (pendingKey{v.Topic, v.Target}); d.pending[key] == v {
			delete(d.pending, key)
		}
		d.pendingMu.Unlock()
	}
}

// Forget drops the offences of a target, after a person unbanned it.
func (d *Detector) Forget(topic ban.Topic, target ban.Target) {
	for _, j := range d.jails {
		if j.topic == topic {
			j.mu.Lock()
			j.window.remove(target)
			j.forgive(target)
			j.mu.Unlock()
		}
	}
	d.pendingMu.Lock()
	delete(d.pending, pendingKey{topic, target})
	d.pendingMu.Unlock()
}

// sweep lets go of targets whose last offence is too long ago to count.
func (d *Detector) sweep() {
	now := d.o.Now()
	for _, j := range d.jails {
		j.mu.Lock()
		j.window.expire(now.Add(-j.window.findTime))
		j.purge(now)
		j.mu.Unlock()
	}
}

// How long ended bans make the next one longer, how many are remembered, and
// how often that is looked after.
const (
	rememberFor = 30 * 24 * time.Hour
	// endedFor is how long others are remembered: until older logs that are read now
	// are read.
	endedFor   = 10 * time.Minute
	maxBans    = 100_000
	purgeEvery = time.Minute
)

// purge forgets bans that ended long ago, and when there are too many the
// tenth of them that ends first.
func (j *jail) purge(now time.Time) {
	if len(j.bans) == 0 || now.Sub(j.purged) < purgeEvery && len(j.bans) < maxBans {
		return
	}
	j.purged = now
	remember := rememberFor
	if !j.def.Detect.Increment.Enabled {
		remember = endedFor
	}
	limit := now.Add(-remember)
	for t, b := range j.bans {
		if b.End.Before(limit) {
			j.forget(t)
		}
	}
	if len(j.bans) < maxBans {
		return
	}
	byEnd := slices.SortedFunc(maps.Keys(j.bans), func(a, b ban.Target) int { return j.bans[a].End.Compare(j.bans[b].End) })
	for _, t := range byEnd[:len(byEnd)/10] {
		j.forget(t)
	}
}

func (j *jail) forget(t ban.Target) {
	delete(j.bans, t)
	j.banChanged(t)
}

func (j *jail) banChanged(t ban.Target) {
	if j.bansChanged != nil {
		j.bansChanged[t] = struct{}{}
	}
}

// A jail is a topic's filter and counters.
type jail struct {
	topic    ban.Topic
	def      *topics.Definition
	simulate bool
	filter   *filter.Filter
	rules    []ruleMeaning // by failregex
	ignore   ignoreList
	useDNS   bool

	mu     sync.Mutex
	window *window
	stall  stall
	counts jailCounts
	bans   map[ban.Target]banCount
	echoes map[ban.Target]echo // of bans that two programs may have made
	// bansChanged and saved are for the state file: targets whose bans differ
	// from it, nil where none is written, and the counts in it.
	bansChanged map[ban.Target]struct{}
	saved       counts
	purged      time.Time
}

// ruleMeaning is one failregex's verdict on the offence.
type ruleMeaning struct {
	class  ban.Class
	weight float64
	weak   bool
	twin   bool
	rule   int
}

// banCount is the newest decision about a target.
type banCount struct {
	Count int       `json:"count"` // with Increment: how many there were
	End   time.Time `json:"end"`
	// From and Last are when its offences were; zero where a person forgave them.
	From time.Time `json:"from,omitzero"`
	Last time.Time `json:"last,omitzero"`
	// Recorded says that others know of the ban: it is not simulated, had not
	// ended before it was made, and could be written.
	Recorded bool `json:"recorded,omitempty"`
}

type jailCounts struct {
	found, ignored, banned, uncorroborated uint64
	tainted, stalled, successes            uint64
	stalledAt, taintedAt                   time.Time

	doubted   netip.Addr // the address of the last line that was not believed
	doubtedAt time.Time
}

func newJail(j Jail, o *Options, b *budget) (*jail, error) {
	def := j.Definition
	if def == nil || def.Detect == nil {
		return nil, errors.New("a jail without detection")
	}
	c, err := FilterConfig(def, o.Fail2banDir)
	if err != nil {
		return nil, err
	}
	f, err := filter.Compile(c)
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", def.Name, err)
	}
	out := &jail{topic: def.Name, def: def, simulate: j.Simulate, filter: f, useDNS: def.Detect.UseDNS, rules: meanings(def, f.Count())}
	if out.ignore, err = newIgnoreList(def.Detect.IgnoreIP, o.Addresses); err != nil {
		return nil, fmt.Errorf("topic %s: %w", def.Name, err)
	}
	if _, err := f.Follow(dates.Options{Zone: def.Detect.Timezone}); err != nil {
		return nil, fmt.Errorf("topic %s: %w", def.Name, err)
	}
	out.window = newWindow(def.Detect.FindTime.Duration(), float64(def.Detect.MaxRetry), b)
	out.window.episode = def.Detect.Episode.Duration()
	out.bans = map[ban.Target]banCount{}
	if o.StatePath != "" {
		out.window.changed, out.bansChanged = map[ban.Target]struct{}{}, map[ban.Target]struct{}{}
	}
	return out, nil
}

// FilterConfig gives the filter that a definition means, its own rules or the
// fail2ban filter that it names, read from dir ("" is /etc/fail2ban).
func FilterConfig(def *topics.Definition, dir string) (filter.Config, error) {
	d := def.Detect
	c := filter.Config{
		Name: string(def.Name), Prefregex: d.Prefregex, Ignoreregex: d.Ignoreregex,
		MaxLines: d.MaxLines, DatePattern: d.Datepattern, UseDNS: "no",
	}
	if d.UseDNS {
		c.UseDNS = "yes"
	}
	if d.Fail2ban != "" {
		return fail2banFilter(def, dir)
	}
	c.Taint = d.Taint
	if d.Format != "" {
		c.Records = records(d)
	}
	for _, r := range d.Rules {
		c.Failregex = append(c.Failregex, r.Regex...)
	}
	for _, s := range d.Success {
		c.Success = append(c.Success, s.Regex...)
	}
	return c, nil
}

// records gives a definition's rules for lines of fields.
func records(d *topics.Detect) *filter.Records {
	r := &filter.Records{Address: d.Address, Port: d.Port, User: d.User, Time: d.Time}
	for _, f := range d.Formats() {
		r.Formats = append(r.Formats, fields.Format(f))
	}
	if len(d.Sets) > 0 {
		r.Sets = map[string]fields.Texts{}
		for _, s := range d.Sets {
			r.Sets[s.Name] = fields.Texts{Path: s.Path, Texts: s.Texts}
		}
	}
	for _, x := range d.Rules {
		if len(x.Where) > 0 {
			r.Where = append(r.Where, x.Where)
		}
	}
	for _, x := range d.Success {
		if len(x.Where) > 0 {
			r.SuccessWhere = append(r.SuccessWhere, x.Where)
		}
	}
	return r
}

// meanings gives the verdict of each of a filter's n rules: those with
// expressions first, and those with conditions after the expressions of
// successes. A rule that no definition describes, as in a filter of fail2ban's, is of
// the filter's class.
func meanings(def *topics.Definition, n int) []ruleMeaning {
	out := make([]ruleMeaning, n)
	class := ban.ClassAuth
	if def.Detect.Fail2ban != "" {
		name, _, _ := strings.Cut(def.Detect.Fail2ban, "[")
		class = classOf(filepath.Base(name))
	}
	for i := range out {
		out[i] = ruleMeaning{class: class, weight: 1}
	}
	at := 0
	put := func(m ruleMeaning, times int) {
		for range times {
			if at < n {
				out[at] = m
			}
			at++
		}
	}
	for i, r := range def.Detect.Rules {
		put(meaningOf(def, i), len(r.Regex))
	}
	for _, s := range def.Detect.Success {
		at += len(s.Regex)
	}
	for i, r := range def.Detect.Rules {
		if len(r.Where) > 0 {
			put(meaningOf(def, i), 1)
		}
	}
	return out
}

func meaningOf(def *topics.Definition, rule int) ruleMeaning {
	r := def.Detect.Rules[rule]
	m := ruleMeaning{class: r.Class, weight: 1, weak: r.IsWeak(), twin: r.Twin, rule: rule}
	if r.Weight != nil {
		m.weight = *r.Weight
	}
	return m
}

// banTime is how long a ban lasts that would be the target's count-th.
func (j *jail) banTime(count int) time.Duration {
	d := j.def.Detect
	base := d.BanTime.Duration()
	if !d.Increment.Enabled || base == permanent {
		return base
	}
	factor := d.Increment.Factor
	if m := d.Increment.Multipliers; len(m) > 0 {
		factor *= m[min(count, len(m)-1)]
	} else {
		factor *= float64(uint64(1) << min(count, 20))
	}
	seconds := base.Seconds() * factor
	if limit := d.Increment.MaxTime.Duration(); limit > 0 && seconds > limit.Seconds() {
		seconds = limit.Seconds()
	}
	if r := d.Increment.Random.Duration(); r > 0 {
		seconds += rand.Float64() * r.Seconds()
	}
	if seconds >= permanent.Seconds() {
		return permanent
	}
	return time.Duration(seconds * float64(time.Second))
}
