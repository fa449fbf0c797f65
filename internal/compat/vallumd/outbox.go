package vallumd

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
)

// MaxElements bounds the addresses that the sets of a broker have from us: the usual size
// of an ipset.
const MaxElements = 65536

// expandFrom is the widest prefix of IPv4 that is published address by address.
const expandFrom = 28

// An Element is an address in a set.
type Element struct {
	Set  string
	Addr netip.Addr
}

// A change of a set is to be published.
type change struct {
	Element
	add bool
}

// An outbox compares the addresses that sets should have with those that they have
// from us. Its owner locks.
type outbox struct {
	sets     map[ban.Topic]Set
	accepted map[string]bool // sets that are accepted too
	timeout  time.Duration
	most     int // [MaxElements]

	bans      map[export.Key]time.Time // that can be published
	leftOut   map[export.Key]time.Time // in force, and in no set; as many as [MaxElements]
	want      map[Element]int          // how many bans want it
	published map[Element]time.Time    // when it was acknowledged last; zero: by an earlier connection
	dirty     map[Element]bool         // looked at next
	swept     time.Time                // when all were
	unsaved   map[Element]bool         // those that came into published, or went, since it was saved
}

func newOutbox(sets []Set, timeout time.Duration, published []Element) outbox {
	o := outbox{sets: map[ban.Topic]Set{}, accepted: map[string]bool{}, timeout: timeout, most: MaxElements, published: map[Element]time.Time{}, unsaved: map[Element]bool{}}
	for _, s := range sets {
		if s.Publish {
			o.sets[s.Topic] = s
		}
		for _, name := range s.names() {
			o.accepted[name] = o.accepted[name] || s.Accept
		}
	}
	for _, x := range published {
		o.published[x] = time.Time{}
	}
	o.clear()
	return o
}

func (s Set) names() []string {
	if s.Name6 == "" || s.Name6 == s.Name {
		return []string{s.Name}
	}
	return []string{s.Name, s.Name6}
}

func (o *outbox) publishes(t ban.Topic) bool { _, ok := o.sets[t]; return ok }

func (o *outbox) accepts(set string) bool { return o.accepted[set] }

// every is how often all addresses are looked at.
func (o *outbox) every() time.Duration { return min(max(o.timeout/16, time.Second), time.Minute) }

// clear forgets the bans, and not the sets' contents.
func (o *outbox) clear() {
	o.bans, o.leftOut, o.want, o.dirty = map[export.Key]time.Time{}, map[export.Key]time.Time{}, map[Element]int{}, map[Element]bool{}
	o.swept = time.Time{}
}

// reconnected has every address published anew: the vallumds may have been cut off too.
func (o *outbox) reconnected() {
	for k := range o.published {
		o.published[k] = time.Time{}
	}
	o.swept = time.Time{}
}

// elements gives the elements of sets that stand for a target, none where no set can
// hold it.
func (o *outbox) elements(k export.Key) (list []Element) {
	s, published := o.sets[k.Topic]
	p, ok := k.Target.Prefix()
	switch {
	case !ok || !published:
	case p.IsSingleIP() && p.Addr().Is4():
		list = []Element{{s.Name, p.Addr()}}
	case p.IsSingleIP() && s.Name6 != "":
		list = []Element{{s.Name6, p.Addr()}}
	case p.Addr().Is4() && p.Bits() >= expandFrom:
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			list = append(list, Element{s.Name, a})
		}
	}
	return list
}

// ban notes a ban in force.
func (o *outbox) ban(e export.Entry) {
	k := export.Key{Target: e.Target, Topic: e.Topic}
	if _, known := o.bans[k]; known {
		o.bans[k] = e.Until
		return
	}
	if !o.publishes(k.Topic) {
		return
	}
	list := o.elements(k)
	if len(list) == 0 || len(o.want)+len(list) > o.most {
		if _, known := o.leftOut[k]; known || len(o.leftOut) < o.most {
			o.leftOut[k] = e.Until
		}
		return
	}
	delete(o.leftOut, k)
	o.bans[k] = e.Until
	for _, x := range list {
		o.want[x]++
		o.dirty[x] = true
	}
}

// lift notes that a ban has ended.
func (o *outbox) lift(k export.Key) {
	delete(o.leftOut, k)
	if _, known := o.bans[k]; !known {
		return
	}
	delete(o.bans, k)
	for _, x := range o.elements(k) {
		if o.want[x]--; o.want[x] <= 0 {
			delete(o.want, x)
		}
		o.dirty[x] = true
	}
}

// due gives the messages that are to be sent now, deletions first.
func (o *outbox) due(now time.Time) (list []change) {
	look := func(k Element) {
		at, published := o.published[k]
		switch {
		case o.want[k] > 0 && (!published || now.Sub(at) >= o.timeout*3/4 || now.Before(at)):
			list = append(list, change{k, true})
		case o.want[k] == 0 && published:
			list = append(list, change{k, false})
		}
	}
	if now.Sub(o.swept) >= o.every() || now.Before(o.swept) {
		o.swept = now
		for k, until := range o.bans {
			if !until.After(now) {
				o.lift(k)
			}
		}
		for k, until := range o.leftOut {
			if o.lift(k); until.After(now) {
				o.ban(export.Entry{Target: k.Target, Topic: k.Topic, Until: until}) // there may be room now
			}
		}
		for k := range o.want {
			look(k)
		}
		for k := range o.published {
			if o.want[k] == 0 {
				look(k)
			}
		}
	} else {
		for k := range o.dirty {
			look(k)
		}
	}
	clear(o.dirty)
	slices.SortFunc(list, func(a, b change) int {
		if a.add != b.add {
			if b.add {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Set, b.Set), a.Addr.Compare(b.Addr))
	})
	return list
}

// acknowledged notes that the broker has a message.
func (o *outbox) acknowledged(m change, now time.Time) {
	if _, published := o.published[m.Element]; published != m.add {
		o.unsaved[m.Element] = m.add
	}
	if m.add {
		o.published[m.Element] = now
	} else {
		delete(o.published, m.Element)
	}
}
