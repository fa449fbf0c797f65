package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clock notices when the wall clock is set: the kernel counts the time that
// bans have left, so it must be told anew.
type clock struct {
	at   time.Time // the present, for timeouts
	last time.Time // at the last Check
	mono time.Duration
}

// jumped says by how much the wall clock moved otherwise than time passed since
// the last call. A suspended machine looks like that, too: its kernel's timers
// stood still.
func (c *clock) jumped(now time.Time, mono time.Duration) time.Duration {
	defer func() { c.last, c.mono = now, mono }()
	if c.last.IsZero() {
		return 0
	}
	return now.Round(0).Sub(c.last.Round(0)) - (mono - c.mono)
}

// monotonic is the clock that kernel timers run by.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

const (
	// clockSlack is how far the wall clock may drift between two checks before
	// timeouts are written anew.
	clockSlack = 5 * time.Second
	// countSlack is how long after its end an element may still be counted, and
	// how exactly the kernel's timers and our clock agree.
	countSlack = 3
	// verifyEvery is how often the table is looked at though nobody seems to have
	// written.
	verifyEvery = 5 * time.Minute
	// sampled is how many elements of each map a verification looks up.
	sampled = 64
)

func isGone(err error) bool { return errors.Is(err, unix.ENOENT) }

// Check implements [Firewall].
func (n *NFTables) Check(ctx context.Context) (Drift, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(n.usable(), ctx.Err()); err != nil {
		return Drift{}, err
	}
	var d Drift
	err := n.check(ctx, &d)
	d.Owed, d.Bans, d.Off = len(n.owed), n.state.size(), n.off
	if n.reload != reloadNone && !n.off {
		d.Owed = d.Bans
	}
	d.Cured = d.Changed && err == nil && d.Owed == 0
	if d.Changed {
		n.log.Warn("firewall was changed by another program", "what", strings.Join(d.What, "; "), "cured", d.Cured)
	}
	return d, err
}

func (n *NFTables) check(ctx context.Context, d *Drift) error {
	n.clock.at = n.now()
	now := secondOf(n.clock.at)
	if j := n.clock.jumped(n.clock.at, n.test.mono()); j.Abs() > clockSlack {
		n.log.Info("the clock was set; bans are written anew", "by", j.Round(time.Second))
		n.reload = reloadForced
		n.wide[0].dirty, n.wide[1].dirty = true, true
		n.wide[0].unknown, n.wide[1].unknown = true, true
	}
	if _, wide := n.state.sweep(now, false); wide {
		n.wide[0].dirty, n.wide[1].dirty = true, true
	}
	gen, err := n.k.generation()
	if err != nil {
		return errors.Join(n.explain("reading the generation", err), n.reopen())
	}
	moved := gen != n.gen || n.foreign || n.clock.at.Sub(n.verified) > verifyEvery
	if moved {
		if err := n.obeySwitch(d); err != nil {
			return err
		}
	}
	if n.off {
		n.gen, n.foreign = gen, false
		return nil
	}
	if !n.adopted {
		return nil
	}
	if moved {
		if err := n.verifyTable(d); err != nil {
			return err
		}
	}
	if n.reload == reloadNone && len(n.owed) == 0 {
		if moved || !n.suspectAt.IsZero() && n.clock.at.Sub(n.suspectAt) > countSlack*time.Second {
			if err := n.verifyBans(now, d, moved); err != nil {
				return err
			}
		}
	}
	if moved {
		n.foreign, n.verified = false, n.clock.at
		if n.gen, err = n.k.generation(); err != nil {
			return n.explain("reading the generation", err)
		}
	}
	return errors.Join(n.pay(ctx), n.writeSoiled(now), n.cut())
}

// verifyTable compares everything but the bans with what it ought to be, and
// puts it right.
func (n *NFTables) verifyTable(d *Drift) error {
	n.have = nil
	what, err := n.structure()
	d.What = append(d.What, what...)
	d.Changed = d.Changed || len(what) > 0
	return err
}

// verifyBans compares the maps with the bans by counting and by samples, never
// by reading them back, which takes the kernel minutes where they are large.
func (n *NFTables) verifyBans(now second, d *Drift, moved bool) error {
	n.state.sweep(now-countSlack, true)
	suspect := !n.suspectAt.IsZero()
	n.suspectAt = time.Time{}
	most, least := n.state.counts(now + countSlack)
	for k := kindHost4; k <= kindNet6; k++ {
		count, known, err := n.k.count(mapNames[k])
		if err != nil {
			return n.explain("counting bans", err)
		}
		other, err := n.sample(k, now)
		if err != nil {
			return err
		}
		switch {
		case known && int(count) < least[k]:
			d.What = append(d.What, fmt.Sprintf("%d bans were gone from %s", least[k]-int(count), mapNames[k]))
			n.reload = reloadForced
		case other:
			d.What = append(d.What, "bans in "+mapNames[k]+" were others")
			n.reload = reloadForced
		case known && int(count) > most[k]:
			d.What = append(d.What, fmt.Sprintf("%d bans in %s were not wanted", int(count)-most[k], mapNames[k]))
			fallthrough
		case !known && suspect:
			if err := n.replaceMap(k, now); err != nil {
				return err
			}
		}
	}
	for i := range n.wide {
		w := &n.wide[i]
		if !moved || w.dirty {
			continue
		}
		count, known, err := n.k.count(wideNames[i])
		if err != nil {
			return n.explain("counting prefixes", err)
		}
		low, high := spread(w.held, now)
		if known && (int(count) < low || int(count) > high) {
			d.What = append(d.What, "prefixes in "+wideNames[i]+" were others")
			w.dirty, w.unknown = true, true
		}
	}
	d.Changed = d.Changed || len(d.What) > 0
	return nil
}

var wideNames = [...]string{mapWide4, mapWide6}

// spread gives how many segments there are at least and at most, with those
// that end about now. The kernel counts an interval as one, and may overlook
// one that ends where the addresses end.
func spread(segments []segment, now second) (low, high int) {
	for _, s := range segments {
		if s.slot.until > now+countSlack && s.to.Next().IsValid() {
			low++
		}
		if s.slot.until > now-countSlack {
			high++
		}
	}
	return low, high
}

// counts gives, for each hash map, how many bans there are, and how many of
// them last beyond a time.
func (s *state) counts(beyond second) (all, lasting [3]int) {
	all = [3]int{s.host4.len(), len(s.host6), s.net6.len()}
	for k := kindHost4; k <= kindNet6; k++ {
		s.eachOf(k, func(_ netip.Prefix, v slot) bool {
			if v.until > beyond {
				lasting[k]++
			}
			return true
		})
	}
	return all, lasting
}

// sample looks up some bans of a map, others each time, and says whether one
// is not as it ought to be.
func (n *NFTables) sample(k kind, now second) (other bool, err error) {
	left := sampled
	n.state.eachOf(k, func(p netip.Prefix, v slot) bool {
		if v.until <= now+countSlack {
			left--
			return left > 0
		}
		var data []byte
		data, err = n.k.get(mapNames[k], appendKey(nil, p))
		switch {
		case isGone(err):
			other, err = true, nil
		case err != nil:
			err = n.explain("looking a ban up", err)
			return false
		case len(data) != 4 || binary.NativeEndian.Uint32(data) != n.state.classes[v.class].id:
			other = true
		}
		left--
		return left > 0 && !other
	})
	return other, err
}

// replaceMap empties a map of strangers and writes its bans in the same
// transaction, so that nobody slips through meanwhile. It costs seconds at a
// million, which is why it is the last resort.
func (n *NFTables) replaceMap(k kind, now second) error {
	if err := n.dropStamps(); err != nil {
		return err
	}
	n.clock.at = n.now()
	n.k.tx.begin()
	n.k.tx.flushSet(n.config.Table, mapNames[k])
	var key [16]byte
	l := n.k.tx.list(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, n.config.Table, mapNames[k])
	n.state.eachOf(k, func(p netip.Prefix, v slot) bool {
		if v.until > now {
			l.next()
			n.encodeElement(appendKey(key[:0], p), v)
		}
		return true
	})
	l.end()
	err := n.explain("replacing "+mapNames[k], n.flush())
	n.k.tx.b = nil // do not keep what only this needed
	return err
}
