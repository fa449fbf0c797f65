package detect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// An offence is one observation of a target, by a log line or by a program.
type offence struct {
	target      ban.Target
	addr        netip.Addr // the single address, where it is known
	port        uint16     // the client's, where the line names it
	class       ban.Class
	weight      float64
	established bool // the kernel confirms its connection, or the agent had it itself
	weak        bool // honest clients do this too
	twin        int  // the rule, from 1, where others tell of the same; else 0
	tainted     bool // a client may have written the whole line
	spoofable   bool // anybody who can send a packet may have written it
	elsewhere   bool // another machine may have written it, whose kernel this is not
	named       bool // its address was found by a name in the line
	account     Account
	at          time.Time
	odd         time.Duration // the date in the line, from the clock, where that was not believed
}

// A Sighting is an offender of whom too little was seen for a decision.
type Sighting struct {
	Topic       ban.Topic
	Target      ban.Target
	Class       ban.Class
	Hits        int       // offences
	At          time.Time // of the last one
	Established bool      // all came over an established connection
}

// suspectLimit is how many offences of usual weight ban a suspect.
const suspectLimit = 2

// count adds an offence to a jail's window and decides. evidence says where it
// comes from; it is asked only for decisions. [ErrUnconfirmed] says that the
// offence is not believed.
func (d *Detector) count(ctx context.Context, j *jail, o offence, evidence func() (filter, source, sample string)) error {
	now := d.o.Now()
	listed := j.ignore.holds(o.target)
	if shielded := !listed && d.o.Ignored != nil && d.o.Ignored(o.target); listed || shielded {
		if shielded {
			d.notice(ctx, j, &o, true)
		}
		j.mu.Lock()
		j.counts.ignored++
		j.mu.Unlock()
		return nil
	}
	guest := o.weight > 0 && d.o.Guest != nil && d.o.Guest(j.topic, o.target)
	if guest && o.weak {
		o.weight = 0
	}
	if o.weight > 0 && !d.believed(ctx, j, &o) {
		return ErrUnconfirmed
	}
	if o.weight > 0 {
		d.notice(ctx, j, &o, false)
	}
	// A ban is counted once: whether an offence is of who is banned already is
	// judged by the offence's own time, also when the log is read late.
	banned := o.weight > 0 && d.banned(j, o.target, o.at)
	watched := d.o.Watched != nil && o.weight > 0 && !o.weak && d.o.Watched(j.topic, o.target)
	suspected := !watched && d.o.Suspected != nil && o.weight > 0 && !o.weak && d.o.Suspected(j.topic, o.target)
	j.mu.Lock()
	j.counts.found++
	if o.weak && d.stalled(ctx, j, &o) || o.weight == 0 || banned || j.decided(o.target, o.at) || j.echoed(o.target, o.at, false) {
		j.mu.Unlock()
		return nil
	}
	j.window.rebase(now)
	e := j.add(&o)
	if !e.reaches(j.limitOf(guest, watched, suspected)) {
		x := Sighting{Topic: j.topic, Target: o.target, Class: o.class, Hits: int(e.seen), At: time.Unix(0, e.last), Established: e.established}
		j.mu.Unlock()
		if d.o.Sighted != nil && !guest && !o.weak && x.Established && !j.simulate && x.Hits&(x.Hits-1) == 0 {
			d.o.Sighted(x)
		}
		return nil
	}
	v := Decision{Class: o.class, Guest: guest, Port: o.port, Watched: watched && !e.reaches(j.window.limit)}
	v.Filter, v.Source, v.Sample = evidence()
	ok := j.conclude(&v, e, now)
	j.mu.Unlock()
	switch {
	case ok && j.simulate:
		d.o.Log.InfoContext(ctx, "an offender would be banned", "topic", v.Topic, "target", v.Target, "class", v.Class, "hits", v.Hits, "until", v.End)
	case ok:
		d.decide(ctx, j, v)
		d.recur(ctx, v)
	}
	return nil
}

// A Notice is one offence, whatever becomes of it.
type Notice struct {
	Topic  ban.Topic
	Target ban.Target
	At     time.Time
	// Shielded says that [Options.Ignored] names the target, so that it bans nobody.
	Shielded bool
	// Odd is how far the line's own date was from the clock, where that is too much
	// to be believed: At is the clock's time then.
	Odd time.Duration
}

// notice tells who asked of an offence.
func (d *Detector) notice(ctx context.Context, j *jail, o *offence, shielded bool) {
	if d.o.Noticed != nil {
		d.o.Noticed(ctx, Notice{Topic: j.topic, Target: o.target, At: o.at, Shielded: shielded, Odd: o.odd})
	}
}

// prove asks the kernel for the connection that a line is about.
func (d *Detector) prove(ctx context.Context, j *jail, from netip.AddrPort, at time.Time) Proof {
	if d.o.Corroborated == nil || !from.Addr().IsValid() {
		return ProofUnknown
	}
	return d.o.Corroborated(ctx, Question{Topic: j.topic, From: from, At: at})
}

// believed says that an offence may count: the kernel does not deny its
// connection, and where a client may have written the line it confirms the very
// one, port included.
func (d *Detector) believed(ctx context.Context, j *jail, o *offence) bool {
	if o.established {
		return true // nobody knows better
	}
	proof := d.prove(ctx, j, netip.AddrPortFrom(o.addr, o.port), o.at)
	if proof == ProofDenied && o.elsewhere {
		proof = ProofUnknown
	}
	doubted := o.tainted && (proof != ProofConfirmed || o.port == 0)
	if proof == ProofDenied || doubted {
		j.mu.Lock()
		defer j.mu.Unlock()
		if doubted {
			j.counts.tainted++
			j.counts.taintedAt = d.o.Now()
		}
		if proof == ProofDenied {
			j.counts.uncorroborated++
			j.counts.doubted, j.counts.doubtedAt = o.addr, d.o.Now()
		}
		return false
	}
	o.established = proof == ProofConfirmed && !o.spoofable
	return true
}

// add puts an offence into the window. The caller holds the jail's lock.
func (j *jail) add(o *offence) *entry {
	if !o.weak {
		counted := o.weight
		if o.twin > 0 {
			counted = j.window.untold(o.target, o.twin, o.weight)
		}
		x := event{At: o.at.UnixNano(), Weight: counted, Account: o.account, Unconfirmed: !o.established, Port: o.port}
		if o.twin > 0 {
			x.Rule, x.Told = int32(o.twin), o.weight
		}
		return j.window.count(o.target, x)
	}
	weight := o.weight
	if j.window.counts(o.target, o.port) {
		weight = 0
	}
	e, counted := j.window.countWeak(o.target, event{At: o.at.UnixNano(), Weight: weight, Account: o.account, Unconfirmed: !o.established})
	if o.named {
		e.detail().named = true
	}
	j.stall.from[o.target] += counted
	return e
}

// stalled says that a weak offence is one of a burst that this node's own
// standing still left, and takes back the burst's count so far. The caller
// holds the jail's lock.
func (d *Detector) stalled(ctx context.Context, j *jail, o *offence) bool {
	begins, is := j.stall.add(o.target, o.at)
	switch {
	case begins:
		for target, counted := range j.stall.from {
			j.window.take(target, counted)
		}
		j.counts.stalled += uint64(j.stall.lines)
		j.counts.stalledAt = o.at
		d.o.Log.WarnContext(ctx, "this node stood still, so weak offences of that moment count for nobody",
			"topic", j.topic, "at", o.at.Format(time.TimeOnly), "lines", j.stall.lines, "addresses", len(j.stall.from))
	case is:
		j.counts.stalled++
	}
	return is
}

// succeed takes a login: failures of the same account and address are forgiven.
func (d *Detector) succeed(ctx context.Context, j *jail, target ban.Target, s Success) {
	if d.prove(ctx, j, netip.AddrPortFrom(s.Addr, s.Port), s.At) == ProofDenied {
		j.mu.Lock()
		j.counts.uncorroborated++
		j.mu.Unlock()
		return
	}
	j.mu.Lock()
	j.counts.successes++
	j.window.forgive(target, s.Account)
	j.mu.Unlock()
	if d.o.Success != nil {
		d.o.Success(ctx, s)
	}
}

// An Observation is an offence that a program on this machine reports instead
// of writing a log line.
type Observation struct {
	Topic  ban.Topic
	Target ban.Target // one address
	Class  ban.Class
	// Accepted says that the agent itself had the connection: nobody need be
	// asked for it.
	Accepted bool
	At       time.Time
}

var (
	// ErrNotDetected says that the topic's offenders are not looked for here.
	ErrNotDetected = errors.New("the topic is not detected here")
	// ErrUnconfirmed says that the kernel knows no connection of the address.
	ErrUnconfirmed = errors.New("the kernel saw no connection of the address with the topic's ports")
	// ErrNotOneAddress says that a report names something else than one address.
	ErrNotOneAddress = errors.New("a report names one IP address")
)

// Report counts an observation as the topic's log lines are counted. It weighs
// as much as the topic's heaviest rule of its class, or 1 where none has it.
func (d *Detector) Report(ctx context.Context, o Observation) error {
	p, ok := o.Target.Prefix()
	if !ok || !p.IsSingleIP() {
		return fmt.Errorf("%s: %w", o.Target, ErrNotOneAddress)
	}
	target, _, ok := targetOf(p.Addr().String())
	if !ok {
		return fmt.Errorf("%s: %w", o.Target, ErrNotOneAddress)
	}
	for _, j := range d.jails {
		if j.topic != o.Topic {
			continue
		}
		at := o.At
		if now := d.o.Now(); at.After(now) {
			at = now
		}
		return d.count(ctx, j, offence{target: target, addr: p.Addr(), class: o.Class, weight: j.weightOf(o.Class), weak: o.Class == ban.ClassScanWeak, established: o.Accepted, at: at}, func() (filter, source, sample string) {
			return string(j.topic) + ":report", "a program's report", ""
		})
	}
	return ErrNotDetected
}

// weightOf gives the weight of an offence of a class that no line was matched for.
func (j *jail) weightOf(c ban.Class) float64 {
	most := 0.0
	for _, r := range j.rules {
		if r.class == c {
			most = max(most, r.weight)
		}
	}
	if most == 0 {
		return 1
	}
	return most
}
