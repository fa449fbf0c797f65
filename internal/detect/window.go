package detect

import (
	"math"
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

// A window counts the offences of each target as fail2ban does: the count of
// a target whose first offence is older than findTime is scaled down to the
// rate that it had, so a slow attacker is not forgotten at once.
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

type entry struct {
	target      ban.Target
	first, last int64 // Unix nanoseconds
	hits        float64
	seen        uint32
	established bool
	// weak is how much of hits is weak offences.
	weak  float64
	more  *details // nil for most
	older *entry
	newer *entry
}

// details are of few entries.
type details struct {
	// When the last episode of weak offences began, and how much it counts.
	episode      int64
	episodeCount float64
	// accounts is how much of hits is failures of an account, so that a login
	// of it can take them back.
	accounts []accountHits
	// twins is how much each of the rules counted that tell of the same.
	twins []twinHits
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

// An accountHits is how much an account's failures count.
type accountHits struct {
	Account Account `json:"u"`
	Hits    float64 `json:"h"`
}

// A twinHits is how much a rule counted that has twins.
type twinHits struct {
	Rule int     `json:"r"`
	Hits float64 `json:"h"`
}

// maxAccounts bounds the accounts of a target that are told apart: who tries
// more of them forgot no password.
const maxAccounts = 4

func newWindow(findTime time.Duration, limit float64, b *budget) *window {
	return &window{findTime: findTime, limit: limit, entries: map[ban.Target]*entry{}, budget: b}
}

// add counts an offence and gives the target's entry.
func (w *window) add(target ban.Target, at time.Time, weight float64, established bool) *entry {
	t := at.UnixNano()
	e := w.entries[target]
	if e == nil {
		w.makeRoom()
		e = &entry{target: target, first: t, last: t, established: true}
		w.entries[target] = e
		w.budget.left.Add(-1)
		w.push(e)
	} else if t > e.last {
		if w.findTime != permanent && e.first < t-int64(w.findTime) {
			scale := float64(w.findTime) / float64(t-e.first)
			e.hits, e.weak = math.Round(e.hits*scale), math.Round(e.weak*scale)
			for i := range e.known().twins {
				e.more.twins[i].Hits *= scale
			}
			e.first = t - int64(w.findTime)
		}
		e.last = t
		w.unlink(e)
		w.push(e)
	}
	e.hits += weight
	e.seen++
	e.established = e.established && established
	w.mark(target)
	return e
}

func (w *window) mark(target ban.Target) {
	if w.changed != nil {
		w.changed[target] = struct{}{}
	}
}

// addWeak is add for an offence that honest clients make too: those of one
// episode count as much as the heaviest of them. counted is how much this one
// added.
func (w *window) addWeak(target ban.Target, at time.Time, weight float64, established bool) (e *entry, counted float64) {
	counted = weight
	e = w.entries[target]
	if t := at.UnixNano(); w.episode > 0 {
		if x := e.known(); x.episodeCount > 0 && t-x.episode < int64(w.episode) && t >= x.episode {
			counted = max(0, weight-x.episodeCount)
			x.episodeCount += counted
		} else {
			defer func() { e.detail().episode, e.detail().episodeCount = t, weight }()
		}
	}
	e = w.add(target, at, counted, established)
	e.weak += counted
	return e, counted
}

// untold gives how much of an offence no twin of its rule has counted yet.
func (w *window) untold(target ban.Target, rule int, weight float64) float64 {
	own, most := 0.0, 0.0
	for _, t := range w.entries[target].known().twins {
		if t.Rule == rule {
			own = t.Hits
		}
		most = max(most, t.Hits)
	}
	return max(0, own+weight-most)
}

// tell notes the count of a rule with twins; rule 0 has none.
func (e *entry) tell(rule int, weight float64) {
	if rule == 0 {
		return
	}
	x := e.detail()
	for i := range x.twins {
		if x.twins[i].Rule == rule {
			x.twins[i].Hits += weight
			return
		}
	}
	x.twins = append(x.twins, twinHits{rule, weight})
}

// take takes back the count of offences.
func (w *window) take(target ban.Target, weak float64) {
	e := w.entries[target]
	if e == nil {
		return
	}
	w.mark(target)
	e.hits, e.weak = max(0, e.hits-weak), max(0, e.weak-weak)
	if e.hits == 0 {
		w.remove(target)
	}
}

// blame notes whose account an offence was about.
func (e *entry) blame(a Account, weight float64) {
	if a == 0 {
		return
	}
	x := e.detail()
	for i := range x.accounts {
		if x.accounts[i].Account == a {
			x.accounts[i].Hits += weight
			return
		}
	}
	if len(x.accounts) < maxAccounts {
		x.accounts = append(x.accounts, accountHits{a, weight})
	}
}

// forgive takes back the failures of an account that has logged in.
func (w *window) forgive(target ban.Target, a Account) {
	e := w.entries[target]
	if e == nil || a == 0 {
		return
	}
	for i, x := range e.known().accounts {
		if x.Account != a {
			continue
		}
		w.mark(target)
		e.more.accounts = slices.Delete(e.more.accounts, i, i+1)
		if e.hits -= min(e.hits, x.Hits); e.hits == 0 {
			w.remove(target)
		}
		return
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
		w.budget.left.Add(1)
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
