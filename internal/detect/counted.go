package detect

import (
	"math"
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// Counted are the offences of a target in a topic that count still, and are too
// few for a ban.
type Counted struct {
	Topic    ban.Topic
	Target   ban.Target
	Offences int // by weight, rounded up
	Limit    int // that many ban
	Within   time.Duration
	Last     time.Time
}

// Counted gives the offences of a target, or of the /64 of an IPv6 address, that
// count still, by topic.
func (d *Detector) Counted(t ban.Target) (list []Counted) {
	targets := []ban.Target{t}
	if p, ok := t.Prefix(); ok && p.Addr().Is6() && p.Bits() > 64 {
		if around, err := ban.TargetOfPrefix(netip.PrefixFrom(p.Addr(), 64)); err == nil {
			targets = append(targets, around)
		}
	}
	now := d.o.Now()
	for _, j := range d.jails {
		for _, t := range targets {
			guest := d.o.Guest != nil && d.o.Guest(j.topic, t)
			suspected := d.o.Suspected != nil && d.o.Suspected(j.topic, t)
			j.mu.Lock()
			e := j.window.entries[t]
			if e == nil || j.window.findTime != permanent && e.last < now.Add(-j.window.findTime).UnixNano() {
				j.mu.Unlock()
				continue
			}
			list = append(list, Counted{
				Topic: j.topic, Target: t, Offences: int(math.Ceil(e.hits - 1e-6)), Limit: int(math.Ceil(j.limitOf(guest, false, suspected) - 1e-6)),
				Within: j.window.findTime, Last: time.Unix(0, e.last),
			})
			j.mu.Unlock()
		}
	}
	return list
}

// limitOf gives the offences that ban a target.
func (j *jail) limitOf(guest, watched, suspected bool) float64 {
	switch {
	case guest:
		return guestLimit(j.def.Detect)
	case watched:
		return 0
	case suspected:
		return min(j.window.limit, suspectLimit)
	}
	return j.window.limit
}
