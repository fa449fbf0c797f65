package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/span"
)

// afterBan counts the offences of banned targets that are dated after their ban
// was in the kernel: a ban that does not bite.
type afterBan struct {
	// since says from when on a ban that covers a target stops it, false where
	// there is none or nobody can tell.
	since func(ban.Topic, ban.Target) (time.Time, bool)
	// packets gives how many the bans of a topic have met.
	packets func(context.Context, ban.Topic) (uint64, bool)
	reason  func(ctx context.Context, topic ban.Topic, target ban.Target, unmet bool) biteReason
	now     func() time.Time
	log     *slog.Logger

	mu     sync.Mutex
	counts map[heldKey]lateOffences
	topics map[ban.Topic]lateTopic
}

// lateOffences are those of one target in one topic after its ban.
type lateOffences struct {
	offences int
	odd      int           // of them, those whose lines have a date that is not believed
	oddBy    time.Duration // how far the last such date was from the clock
	banned   time.Time     // when the ban was in the kernel
	last     time.Time
}

// A lateTopic is a topic with late offences.
type lateTopic struct {
	packets uint64 // that its bans had met at the first of them
	counted bool   // packets is known
	last    time.Time
	said    time.Time // when the log was told
}

// A biteReason is why a ban does not stop its target.
type biteReason struct {
	text, fix string
	severity  string
}

const (
	// lateGrace is how long lines of packets of before a ban are in flight.
	lateGrace = 5 * time.Second
	// lateEnd is how long a service may keep a connection of before a ban and
	// then write a line: sshd's LoginGraceTime, and a margin.
	lateEnd = 150 * time.Second
	// lateLeast is how many late offences of one target are no chance.
	lateLeast = 3
	// maxLate bounds the targets in topics that are counted.
	maxLate = 1_000
	// lateFor is how long one is told of after its last late offence.
	lateFor = time.Hour
)

// notice counts an offence where it is dated after its target's ban.
func (a *afterBan) notice(ctx context.Context, n detect.Notice) {
	if n.Shielded {
		return
	}
	since, ok := a.since(n.Topic, n.Target)
	if !ok || !n.At.After(since.Add(lateGrace)) {
		return
	}
	a.begin(ctx, n.Topic)
	k := heldKey{n.Topic, n.Target}
	a.mu.Lock()
	c, known := a.counts[k]
	if !known && len(a.counts) >= maxLate {
		a.evict()
	}
	if !c.banned.Equal(since) {
		c = lateOffences{banned: since}
	}
	c.offences++
	if n.Odd != 0 {
		c.odd, c.oddBy = c.odd+1, n.Odd
	}
	if n.At.After(c.last) {
		c.last = n.At
	}
	a.counts[k] = c
	x := a.topics[n.Topic]
	x.last = a.now()
	a.topics[n.Topic] = x
	rounds := uint(c.offences / lateLeast)
	ask := c.offences%lateLeast == 0 && bits.OnesCount(rounds) == 1 && a.now().Sub(x.said) > lateFor
	a.mu.Unlock()
	if !ask {
		return // the reason is looked for at 3, 6, 12 ... offences
	}
	r, tell := a.why(ctx, k, c)
	if !tell {
		return
	}
	a.mu.Lock()
	x = a.topics[n.Topic]
	x.said = a.now()
	a.topics[n.Topic] = x
	a.mu.Unlock()
	a.log.WarnContext(ctx, "ban does not bite", slog.String("topic", string(n.Topic)), slog.String("target", n.Target.String()), slog.Int("offences", c.offences), slog.String("reason", r.text))
}

// begin notes how much the bans of a topic had met when its late offences began.
func (a *afterBan) begin(ctx context.Context, topic ban.Topic) {
	a.mu.Lock()
	x, known := a.topics[topic]
	a.mu.Unlock()
	if known && a.now().Sub(x.last) <= lateFor {
		return
	}
	x = lateTopic{last: a.now()}
	x.packets, x.counted = a.packets(ctx, topic)
	a.mu.Lock()
	a.topics[topic] = x
	a.mu.Unlock()
}

// evict drops the count whose last offence is longest ago.
func (a *afterBan) evict() {
	var oldest heldKey
	var at time.Time
	for k, c := range a.counts {
		if at.IsZero() || c.last.Before(at) {
			oldest, at = k, c.last
		}
	}
	delete(a.counts, oldest)
}

// why gives the reason of a target's late offences, and whether they are worth a
// warning: connections of before the ban end in late lines.
func (a *afterBan) why(ctx context.Context, k heldKey, c lateOffences) (r biteReason, warn bool) {
	a.mu.Lock()
	x := a.topics[k.topic]
	a.mu.Unlock()
	met, counted := a.packets(ctx, k.topic)
	// Who gave up when its packets were dropped leaves lines of before the ban:
	// the bans have met something then, though nothing since.
	unmet := counted && x.counted && met == x.packets && (met == 0 || c.last.Sub(c.banned) > lateEnd)
	odd := 2*c.odd > c.offences
	r = a.reason(ctx, k.topic, k.target, unmet && !odd)
	if r.text != "" {
		return r, c.offences >= lateLeast
	}
	r = biteReason{text: "the kernel drops packets by the topic's bans: lines of connections that were open before", severity: control.SeverityLow}
	if odd {
		return oddClock(c.oddBy, unmet), c.offences >= lateLeast
	}
	if c.last.Sub(c.banned) <= lateEnd {
		return r, false
	}
	r.text = "the kernel drops packets by the topic's bans, and others arrive by a way that they do not cover"
	return r, c.offences >= lateLeast
}

// oddClock is the reason of lines whose own date is far from the clock: nobody can
// tell whether they are of before the ban.
func oddClock(by time.Duration, unmet bool) biteReason {
	way := "ahead of"
	if by < 0 {
		way, by = "behind", -by
	}
	text := fmt.Sprintf("the log's own dates are %s %s this machine's clock, so its lines count as just written and may be of before the ban", span.Of(by.Round(time.Minute)), way)
	if unmet {
		text += "; if they are not, somebody else sends the packets, as a proxy does: the kernel met none"
	}
	return biteReason{text, "timedatectl; the clock and the time zone of the program that writes the log, or timezone in the topic's detect", control.SeverityLow}
}

// recent gives the counts that are told of, those of most offences first.
func (a *afterBan) recent() (keys []heldKey, counts map[heldKey]lateOffences) {
	a.mu.Lock()
	defer a.mu.Unlock()
	counts = map[heldKey]lateOffences{}
	for k, c := range a.counts {
		if a.now().Sub(c.last) > lateFor {
			delete(a.counts, k)
			continue
		}
		counts[k] = c
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y heldKey) int {
		return cmp.Or(cmp.Compare(counts[y].offences, counts[x].offences), cmp.Compare(x.topic, y.topic), x.target.Compare(y.target))
	})
	return keys, counts
}

// about lists the late offences of a target and of those it overlaps.
func (a *afterBan) about(ctx context.Context, t ban.Target) (list []control.AfterBan) {
	prefix, ip := t.Prefix()
	if !ip {
		return nil
	}
	keys, counts := a.recent()
	for _, k := range keys {
		if p, _ := k.target.Prefix(); !p.Overlaps(prefix) {
			continue
		}
		c := counts[k]
		r, _ := a.why(ctx, k, c)
		list = append(list, control.AfterBan{Topic: k.topic, Target: k.target, Offences: c.offences, Banned: c.banned, Last: c.last, Reason: r.text, Fix: r.fix})
	}
	return list
}

// warnings names a topic's worst offender whom its ban does not stop.
func (a *afterBan) warnings(ctx context.Context) (list []control.Warning) {
	keys, counts := a.recent()
	told := map[ban.Topic]bool{}
	for _, k := range keys {
		c := counts[k]
		if told[k.topic] || c.offences < lateLeast {
			continue
		}
		r, warn := a.why(ctx, k, c)
		if !warn {
			continue
		}
		told[k.topic] = true
		w := api.BanDoesNotBite.Warn(fmt.Sprintf("%s: %d offences of %s are dated after its ban: %s", k.topic, c.offences, k.target, r.text), r.fix)
		w.Severity = r.severity
		list = append(list, w)
	}
	slices.SortFunc(list, func(a, b control.Warning) int { return strings.Compare(a.Text, b.Text) })
	return list
}
