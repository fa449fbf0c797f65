package detect

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/topics"
)

const permanent = span.Permanent

// farEnd is when permanent bans end: far enough, and a date that every format
// can hold.
var farEnd = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// DefaultMaxTracked targets of about 200 bytes each stay below 64 MB.
const DefaultMaxTracked = 300_000

// A budget is how many more targets all windows together may track.
type budget struct{ left atomic.Int64 }

// A window counts the offences of each target within findTime: five in ten minutes are
// five of which the first is at most ten minutes before the last, and weights add up
// as they are.
type window struct {
	findTime time.Duration
	limit    float64
	entries  map[ban.Target]*entry
	// oldest and newest chain entries by last offence, for eviction.
	oldest, newest *entry
	budget         *budget
	evicted        uint64
	// changed are the targets whose entry differs from the state file's; nil
	// where none is written.
	changed map[ban.Target]struct{}
	// episode is how long weak offences of a target count as one.
	episode time.Duration
}

// An entry is the offences of a target that count still.
type entry struct {
	target ban.Target
	events []event // at least one, by time
	last   int64   // the newest one's time
	// hits is the sum of their weights, weak the part of it that weak ones have, and
	// sure that of the others that came over an established connection.
	hits, weak  float64
	sure        float64
	established bool   // all came over an established connection
	seen        uint32 // offences since the target is tracked
	cost        int32  // its share of the budget
	more        *details
	older       *entry
	newer       *entry
}

// An event is one offence.
type event struct {
	At      int64   `json:"t"` // Unix nanoseconds
	Weight  float64 `json:"w"` // as it counts
	Told    float64 `json:"o,omitempty"`
	Account Account `json:"u,omitempty"` // whose login takes it back
	// Rule is a rule with twins, from 1, and Told how much it told of, whatever its twins
	// had counted before.
	Rule int32 `json:"r,omitempty"`
	Weak bool  `json:"k,omitempty"`
	// Port is where a strong offence's connection came from, 0 where its line does not say.
	Port        uint16 `json:"p,omitempty"`
	Unconfirmed bool   `json:"n,omitempty"` // not known to come over an established connection
}

// maxEvents bounds the events of a target: beyond it the two that lie closest together
// are one, at the time of the earlier.
const maxEvents = 256

// details are of few entries.
type details struct {
	// When the last episode of weak offences began, and how much it counts.
	episode      int64
	episodeCount float64
	// named says that an offence was found by a name.
	named bool
}

// noDetails are those of an entry without.
var noDetails details

// known gives the details to look at, detail those to change.
func (e *entry) known() *details {
	if e == nil || e.more == nil {
		return &noDetails
	}
	return e.more
}

func (e *entry) detail() *details {
	if e.more == nil {
		e.more = &details{}
	}
	return e.more
}

// reaches says that the offences are enough. Sums of weights such as 0.1 are not exact.
func (e *entry) reaches(limit float64) bool { return e.hits > limit-1e-6 }

// first is when the oldest offence that counts was.
func (e *entry) first() int64 { return e.events[0].At }

// sum counts the events anew.
func (e *entry) sum() {
	e.hits, e.weak, e.sure, e.established = 0, 0, 0, true
	for _, x := range e.events {
		e.hits += x.Weight
		switch {
		case x.Weak:
			e.weak += x.Weight
		case !x.Unconfirmed:
			e.sure += x.Weight
		}
		e.established = e.established && !x.Unconfirmed
	}
}

// maxAccounts bounds the accounts of a target that are told apart: who tries
// more of them forgot no password.
const maxAccounts = 4

// mayBlame says whether an account is to be remembered as the event's.
func (e *entry) mayBlame(a Account) bool {
	var known [maxAccounts]Account
	n := 0
	for _, x := range e.events {
		switch {
		case x.Account == 0 || slices.Contains(known[:n], x.Account):
		case x.Account == a:
			return true
		case n < maxAccounts:
			known[n] = x.Account
			n++
		}
	}
	return n < maxAccounts || slices.Contains(known[:n], a)
}

func newWindow(findTime time.Duration, limit float64, b *budget) *window {
	return &window{findTime: findTime, limit: limit, entries: map[ban.Target]*entry{}, budget: b}
}

// add counts an offence and gives the target's entry.
func (w *window) add(target ban.Target, at time.Time, weight float64, established bool) *entry {
	return w.count(target, event{At: at.UnixNano(), Weight: weight, Unconfirmed: !established})
}

// count adds an event and gives the target's entry. One that is older than findTime before the
// target's newest counts for nothing.
func (w *window) count(target ban.Target, x event) *entry {
	w.mark(target)
	e := w.entries[target]
	if e == nil {
		w.makeRoom()
		e = &entry{target: target, last: x.At, events: []event{x}, seen: 1}
		e.sum()
		e.cost = 1
		w.entries[target] = e
		w.budget.left.Add(-1)
		w.push(e)
		return e
	}
	e.seen++
	if w.findTime != permanent && x.At < e.last-int64(w.findTime) {
		return e
	}
	if x.Account != 0 && !e.mayBlame(x.Account) {
		x.Account = 0
	}
	i := len(e.events)
	for i > 0 && e.events[i-1].At > x.At {
		i--
	}
	e.events = slices.Insert(e.events, i, x)
	if x.At > e.last {
		e.last = x.At
		if w.findTime != permanent {
			e.events = slices.DeleteFunc(e.events, func(x event) bool { return x.At < e.last-int64(w.findTime) })
		}
		w.unlink(e)
		w.push(e)
	}
	if len(e.events) > maxEvents {
		e.join()
	}
	e.sum()
	w.charge(e)
	return e
}

// charge takes from the budget as much as the target's events are worth, eight of them as
// much as a target. Room is made among those that were quiet for longer.
func (w *window) charge(e *entry) {
	cost := 1 + int32(len(e.events)/8)
	w.budget.left.Add(int64(e.cost - cost))
	e.cost = cost
	for w.budget.left.Load() < 0 && w.oldest != nil && w.oldest != e {
		w.remove(w.oldest.target)
		w.evicted++
	}
}

// join makes one event of the two that lie closest together.
func (e *entry) join() {
	closest := 1
	for i := 2; i < len(e.events); i++ {
		if e.events[i].At-e.events[i-1].At < e.events[closest].At-e.events[closest-1].At {
			closest = i
		}
	}
	a, b := &e.events[closest-1], e.events[closest]
	a.Weight, a.Told = a.Weight+b.Weight, a.Told+b.Told
	a.Unconfirmed, a.Weak = a.Unconfirmed || b.Unconfirmed, a.Weak || b.Weak
	if a.Account != b.Account {
		a.Account = 0
	}
	if a.Rule != b.Rule {
		a.Rule, a.Told = 0, 0
	}
	e.events = slices.Delete(e.events, closest, closest+1)
}

// rebase follows a clock that was set back to now: times that it had before are not in
// the future, and lie as far apart as they did. So nothing is forgotten and nothing
// counts for longer.
func (w *window) rebase(now time.Time) {
	if w.newest == nil || w.newest.last <= now.Add(clockJitter).UnixNano() {
		return
	}
	back := w.newest.last - now.UnixNano()
	for t, e := range w.entries {
		e.last -= back
		for i := range e.events {
			e.events[i].At -= back
		}
		if e.more != nil {
			e.more.episode -= back
		}
		w.mark(t)
	}
}

// clockJitter is how far a time may lie ahead of one that was asked for a moment
// before, by another reader.
const clockJitter = time.Second

func (w *window) mark(target ban.Target) {
	if w.changed != nil {
		w.changed[target] = struct{}{}
	}
}

// addWeak is add for an offence that honest clients make too: those of one
// episode count as much as the heaviest of them. counted is how much this one
// added.
func (w *window) addWeak(target ban.Target, at time.Time, weight float64, established bool) (e *entry, counted float64) {
	return w.countWeak(target, event{At: at.UnixNano(), Weight: weight, Unconfirmed: !established})
}

func (w *window) countWeak(target ban.Target, x event) (e *entry, counted float64) {
	weight := x.Weight
	counted = weight
	begins := false
	if w.episode > 0 {
		if d := w.entries[target].known(); d.episodeCount > 0 && x.At-d.episode < int64(w.episode) && x.At >= d.episode {
			counted = max(0, weight-d.episodeCount)
			d.episodeCount += counted
		} else {
			begins = true
		}
	}
	x.Weight, x.Weak = counted, true
	e = w.count(target, x)
	if begins {
		e.detail().episode, e.detail().episodeCount = x.At, weight
	}
	return e, counted
}

// counts says whether a strong offence of the connection from a port counts. A line that
// says the same of it again, and that honest clients leave too, then tells nothing new:
// with it, an offender would reach the limit on evidence that is weak in part.
func (w *window) counts(target ban.Target, port uint16) bool {
	e := w.entries[target]
	return e != nil && port != 0 && slices.ContainsFunc(e.events, func(x event) bool { return !x.Weak && x.Port == port })
}

// untold gives how much of an offence no twin of its rule has counted yet.
func (w *window) untold(target ban.Target, rule int, weight float64) float64 {
	e := w.entries[target]
	if e == nil {
		return weight
	}
	told := map[int32]float64{}
	for _, x := range e.events {
		if x.Rule != 0 {
			told[x.Rule] += x.Told
		}
	}
	most := 0.0
	for _, n := range told {
		most = max(most, n)
	}
	return max(0, told[int32(rule)]+weight-most)
}

// take takes back the count of weak offences, newest first.
func (w *window) take(target ban.Target, weak float64) {
	e := w.entries[target]
	if e == nil {
		return
	}
	for i := len(e.events) - 1; i >= 0 && weak > 0; i-- {
		if x := &e.events[i]; x.Weak {
			n := min(weak, x.Weight)
			x.Weight, weak = x.Weight-n, weak-n
		}
	}
	w.settle(e)
}

// forgive takes back the failures of an account that has logged in.
func (w *window) forgive(target ban.Target, a Account) {
	e := w.entries[target]
	if e == nil || a == 0 {
		return
	}
	for i := range e.events {
		if e.events[i].Account == a {
			e.events[i].Weight, e.events[i].Account = 0, 0
		}
	}
	w.settle(e)
}

// settle counts a target anew of whose offences some were taken back.
func (w *window) settle(e *entry) {
	w.mark(e.target)
	if e.sum(); e.hits == 0 {
		w.remove(e.target)
	}
}

// makeRoom evicts the target that was quiet for longest.
func (w *window) makeRoom() {
	for w.budget.left.Load() <= 0 && w.oldest != nil {
		w.remove(w.oldest.target)
		w.evicted++
	}
}

func (w *window) push(e *entry) {
	// Lines come nearly in order: the place is at or near the end.
	after := w.newest
	for after != nil && after.last > e.last {
		after = after.older
	}
	e.older = after
	if after == nil {
		e.newer, w.oldest = w.oldest, e
	} else {
		e.newer, after.newer = after.newer, e
	}
	if e.newer == nil {
		w.newest = e
	} else {
		e.newer.older = e
	}
}

func (w *window) unlink(e *entry) {
	if e.older == nil {
		w.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		w.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.older, e.newer = nil, nil
}

func (w *window) remove(target ban.Target) {
	if e := w.entries[target]; e != nil {
		w.unlink(e)
		delete(w.entries, target)
		w.budget.left.Add(int64(e.cost))
		w.mark(target)
	}
}

// expire lets go of targets whose last offence is at or before limit.
func (w *window) expire(limit time.Time) {
	if w.findTime == permanent {
		return
	}
	for w.oldest != nil && w.oldest.last <= limit.UnixNano() {
		w.remove(w.oldest.target)
	}
}

// v6Bits is one IPv6 attacker's prefix: counting single addresses would let
// everybody with a /64 try for ever.
const v6Bits = 64

// targetOf reads an address that a filter captured. Nothing but an address that
// [netip.ParseAddr] takes is a target, and IPv6 counts by /64.
func targetOf(text string) (ban.Target, netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return ban.Target{}, addr, false
	}
	a := addr.Unmap()
	if a.Is4() {
		t, err := ban.TargetOfAddr(a)
		return t, addr, err == nil
	}
	t, err := ban.TargetOfPrefix(netip.PrefixFrom(a, v6Bits))
	return t, addr, err == nil
}

// insideAnother says that the address at text[from:to] is a piece of a longer
// number or address, and so nobody's address.
func insideAnother(text string, from, to int) bool {
	if from < 0 || to > len(text) {
		return false
	}
	if from > 0 {
		c := text[from-1]
		if isAlnum(c) || c == '.' && from > 1 && isDigit(text[from-2]) {
			return true
		}
	}
	if to < len(text) {
		c := text[to]
		if isAlnum(c) || c == '.' && to+1 < len(text) && isDigit(text[to+1]) {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isAlnum(c byte) bool {
	return isDigit(c) || (c|0x20) >= 'a' && (c|0x20) <= 'z'
}

// An ignoreList holds the addresses that a definition never bans.
type ignoreList struct {
	prefixes []netip.Prefix
	names    []string
	// addresses gives those that a name has; nil: names have none.
	addresses func(name string) []netip.Addr
}

func newIgnoreList(list []string, addresses func(string) []netip.Addr) (ignoreList, error) {
	out := ignoreList{addresses: addresses}
	for _, s := range list {
		t, err := ban.ParseTarget(s)
		if err != nil && topics.IsHostName(s) {
			out.names = append(out.names, strings.ToLower(strings.TrimSuffix(s, ".")))
			continue
		}
		if err != nil {
			return out, err
		}
		if p, ok := t.Prefix(); ok {
			out.prefixes = append(out.prefixes, p)
		}
	}
	return out, nil
}

// holds says that the list names the address or a part of the target.
func (l ignoreList) holds(t ban.Target) bool {
	p, ok := t.Prefix()
	if !ok {
		return false
	}
	for _, q := range l.prefixes {
		if q.Overlaps(p) {
			return true
		}
	}
	if l.addresses == nil {
		return false
	}
	for _, name := range l.names {
		if slices.ContainsFunc(l.addresses(name), p.Contains) {
			return true
		}
	}
	return false
}
