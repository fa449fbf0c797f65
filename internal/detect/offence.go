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
	established bool
	at          time.Time
}

// weak says that honest clients make such offences too.
func (o *offence) weak() bool { return o.class == ban.ClassScanWeak }

// count adds an offence to a jail's window and decides. evidence says where it
// comes from; it is asked only for decisions.
func (d *Detector) count(ctx context.Context, j *jail, o offence, evidence func() (filter, source, sample string)) {
	now := d.o.Now()
	if j.ignore.holds(o.target) || d.o.Ignored != nil && d.o.Ignored(o.target) {
		j.mu.Lock()
		j.counts.ignored++
		j.mu.Unlock()
		return
	}
	guest := o.weight > 0 && d.o.Guest != nil && d.o.Guest(j.topic, o.target)
	if guest && o.weak() {
		o.weight = 0
	}
	if o.weight > 0 && !j.def.Detect.Corroborate.IsZero() && d.o.Corroborated != nil {
		proof := ProofDenied
		if o.addr.IsValid() {
			proof = d.o.Corroborated(ctx, j.topic, netip.AddrPortFrom(o.addr, o.port))
		}
		if proof == ProofDenied {
			j.mu.Lock()
			j.counts.uncorroborated++
			j.counts.doubted, j.counts.doubtedAt = o.addr, now
			j.mu.Unlock()
			return
		}
		o.established = proof == ProofConfirmed
	}
	// A ban is counted once: whether an offence is of who is banned already is
	// judged by the offence's own time, also when the log is read late.
	banned := o.weight > 0 && d.banned(j, o.target, o.at)
	watched := d.o.Watched != nil && o.weight > 0 && d.o.Watched(j.topic, o.target)
	j.mu.Lock()
	j.counts.found++
	if o.weight == 0 || banned || j.decided(o.target, o.at) {
		j.mu.Unlock()
		return
	}
	e := j.window.add(o.target, o.at, o.weight, o.established)
	limit := j.window.limit
	switch {
	case guest:
		limit *= GuestFactor
	case watched:
		limit = 0
	}
	if e.hits < limit {
		j.mu.Unlock()
		return
	}
	v := Decision{Class: o.class, Weak: o.weak()}
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
}

// An Observation is an offence that a program on this machine reports instead
// of writing a log line.
type Observation struct {
	Topic  ban.Topic
	Target ban.Target // one address
	Class  ban.Class
	// Established says that it came over an established connection.
	Established bool
	At          time.Time
}

var (
	// ErrNotDetected says that the topic's offenders are not looked for here.
	ErrNotDetected = errors.New("the topic is not detected here")
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
		d.count(ctx, j, offence{target: target, addr: p.Addr(), class: o.Class, weight: j.weightOf(o.Class), established: o.Established, at: at}, func() (filter, source, sample string) {
			return string(j.topic) + ":report", "a program's report", ""
		})
		return nil
	}
	return ErrNotDetected
}

// weightOf gives what an offence of a class counts that no line was matched for.
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
