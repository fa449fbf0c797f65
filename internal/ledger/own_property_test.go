package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// ownModel is a node's own claims kept in the most obvious way: a claim a
// place and source, and when each target was unbanned until when.
type ownModel struct {
	claims map[ownKey]ban.Claim
	since  map[ownKey]time.Time // of the offence
	unbans map[place]Exemption
}

type ownKey struct {
	place
	source Source
}

// unbannedAt says when the newest unban was that still stands.
func (m *ownModel) unbannedAt(p place, now time.Time) (at time.Time) {
	for _, topic := range []ban.Topic{p.topic, ""} {
		if e, ok := m.unbans[place{topic, p.target}]; ok && e.Until.After(now) && e.Since.After(at) {
			at = e.Since
		}
	}
	return at
}

func (m *ownModel) ban(b Local, now time.Time) error {
	p := place{b.Topic, b.Claim.Target}
	at := m.unbannedAt(p, now)
	switch {
	case !b.Claim.End.After(now):
		return ErrEnded
	case at.IsZero() || b.Source == SourceHand || b.Source == SourceDetection && b.At.After(at):
	default:
		return ErrUnbanned
	}
	key := ownKey{p, b.Source}
	since := m.since[key]
	m.since[key] = b.At
	if old, ok := m.claims[key]; ok && old.End.After(b.At) {
		if since.Before(b.At) {
			m.since[key] = since
		}
		if old.End.After(b.Claim.End) {
			b.Claim.End = old.End
		}
		b.Claim.Hits = max(b.Claim.Hits, old.Hits)
	}
	m.claims[key] = b.Claim
	return nil
}

func (m *ownModel) remove(about func(ownKey) bool) {
	for k := range m.claims {
		if about(k) {
			delete(m.claims, k)
		}
	}
}

// told is the end that the feed gives a claim.
func (m *ownModel) told(k ownKey) time.Time {
	c := m.claims[k]
	if until := m.since[k].Add(claimsCount); c.Basis == ban.BasisStrong && until.After(c.End) {
		return until
	}
	return c.End
}

// says gives the feed of a topic: the strongest claim of each target.
func (m *ownModel) says(topic ban.Topic, now time.Time) []ban.Claim {
	strength := map[ban.Basis]int{ban.BasisWeak: 0, ban.BasisHandedOver: 1, ban.BasisStrong: 2, ban.BasisDecided: 3}
	best := map[ban.Target]ban.Claim{}
	for k, c := range m.claims {
		b, ok := best[c.Target]
		c.End = m.told(k)
		if k.topic == topic && k.source.Published() && c.End.After(now) && (!ok || cmp.Or(cmp.Compare(strength[c.Basis], strength[b.Basis]), c.Compare(b)) > 0) {
			best[c.Target] = c
		}
	}
	return slices.SortedFunc(maps.Values(best), ban.Claim.Compare)
}

// heard is the knowledge of the feed's readers, who are told changes alone.
type heard map[place]ban.Claim

func (h heard) take(list []OwnChange) {
	for _, c := range list {
		for _, claim := range c.Claims {
			h[place{c.Topic, claim.Target}] = claim
		}
		for _, w := range c.Withdrawn {
			delete(h, place{c.Topic, w.Target})
		}
	}
}

func (h heard) says(topic ban.Topic, now time.Time) (list []ban.Claim) {
	for p, c := range h {
		if p.topic == topic && c.End.After(now) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, ban.Claim.Compare)
	return list
}

var ownSources = []Source{SourceDetection, SourceHand, SourceFail2ban, "list:drop", "swamp"}

// TestWhatANodeSaysIsItsModel: for every order of bans, imports, withdrawals by
// source, unbans, time, restarts and kills, the node holds and publishes the
// claims of the model; one source withdraws its own alone; and readers who are
// told the changes know the feed.
func TestWhatANodeSaysIsItsModel(t *testing.T) {
	dir := memory(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprint(run))
		now := t0
		open := func() *Ledger {
			s, err := store.Open(path)
			if err != nil {
				t.Fatalf("%v", err)
			}
			l, err := Open(Options{Store: s, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatalf("%v", err)
			}
			return l
		}
		l, m, readers := open(), &ownModel{claims: map[ownKey]ban.Claim{}, since: map[ownKey]time.Time{}, unbans: map[place]Exemption{}}, heard{}
		defer func() { l.store.Close() }()
		topics := []ban.Topic{"sshd", "mail"}
		drawTargets := func() (list []ban.Target) {
			for range rapid.IntRange(1, 3).Draw(t, "targets") {
				list = append(list, many(rapid.IntRange(0, 5).Draw(t, "target"), 1, 0)[0].Target)
			}
			return list
		}
		drawTopic := func() ban.Topic { return rapid.SampledFrom(append(topics, "")).Draw(t, "topic or all") }
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"ban", "ban", "withdraw", "unban", "time", "restart", "kill"}).Draw(t, "step") {
			case "ban": // one, or an import of several
				source := rapid.SampledFrom(ownSources).Draw(t, "source")
				var bans []Local
				for _, target := range drawTargets() {
					b := Local{Topic: rapid.SampledFrom(topics).Draw(t, "topic"), Source: source, At: now.Add(-time.Duration(rapid.IntRange(0, 600).Draw(t, "ago")) * time.Second)}
					b.Claim = ban.Claim{
						Target: target, End: now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "minutes")) * time.Minute),
						Hits: uint8(rapid.IntRange(0, 9).Draw(t, "hits")), Class: ban.Class(rapid.IntRange(0, 31).Draw(t, "class")), Basis: ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis")),
					}
					bans = append(bans, b)
				}
				// The same target twice in one list is a list that nobody sends.
				bans = slices.CompactFunc(slices.SortedFunc(slices.Values(bans), func(a, b Local) int {
					return cmp.Or(a.Claim.Target.Compare(b.Claim.Target), cmp.Compare(a.Topic, b.Topic))
				}), func(a, b Local) bool { return a.Topic == b.Topic && a.Claim.Target == b.Claim.Target })
				refused, err := l.Own.BanAll(bans)
				if err != nil {
					t.Fatalf("%v", err)
				}
				got := map[int]error{}
				for _, r := range refused {
					got[r.Index] = r.Err
				}
				for i, b := range bans {
					if want := m.ban(b, now); !errors.Is(got[i], want) || (want == nil) != (got[i] == nil) {
						t.Fatalf("banning %+v: %v, want %v", b, got[i], want)
					}
				}
			case "withdraw":
				s := Selection{Topic: drawTopic(), Source: rapid.SampledFrom(append(ownSources, "")).Draw(t, "source or all")}
				if rapid.Bool().Draw(t, "some") {
					s.Targets = drawTargets()
				}
				if _, err := l.Own.Withdraw(s, ban.ReasonEnded); err != nil {
					t.Fatalf("%v", err)
				}
				m.remove(func(k ownKey) bool {
					return (s.Topic == "" || s.Topic == k.topic) && (s.Source == "" || s.Source == k.source) && (s.Targets == nil || slices.Contains(s.Targets, k.target))
				})
			case "unban":
				topic, lasts := drawTopic(), time.Duration(rapid.IntRange(1, 200).Draw(t, "minutes"))*time.Minute
				var list []Exemption
				for _, target := range drawTargets() {
					list = append(list, Exemption{Target: target, Topic: topic})
				}
				if _, err := l.Exemptions.Add(list, lasts); err != nil {
					t.Fatalf("%v", err)
				}
				for _, e := range list {
					m.unbans[place{topic, e.Target}] = Exemption{Since: now, Until: now.Add(lasts)}
					m.remove(func(k ownKey) bool { return (topic == "" || topic == k.topic) && k.target == e.Target })
				}
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(1, 9000).Draw(t, "seconds")) * time.Second)
				if rapid.IntRange(0, 4).Draw(t, "days") == 0 {
					now = now.Add(claimsCount - time.Hour)
				}
				// A claim's end is looked after within a slot.
				for again := true; again; {
					again = false
					for k := range m.claims {
						if end := m.told(k); !end.After(now) && end.After(now.Add(-2*slotSeconds*time.Second)) {
							now, again = now.Add(2*slotSeconds*time.Second), true
						}
					}
				}
				l.Expire(now)
			case "restart", "kill":
				if rapid.Bool().Draw(t, "orderly") {
					if err := l.Close(); err != nil {
						t.Fatalf("%v", err)
					}
				}
				l.store.Close()
				l = open()
				// The feed is made equal to the ledger.
				clear(readers)
				for _, topic := range topics {
					readers.take([]OwnChange{{Topic: topic, Claims: l.Own.Claims(topic)}})
				}
			}
			m.remove(func(k ownKey) bool { return !m.told(k).After(now) })
			readers.take(l.Own.Take())
			checkOwn(t, l, m, readers, now)
		}
	})
}

func checkOwn(t *rapid.T, l *Ledger, m *ownModel, readers heard, now time.Time) {
	got := map[ownKey]ban.Claim{}
	for topic := range l.table.byTopic {
		for r := range l.table.records(topic) {
			for v := range l.table.votesOf(r) {
				if b := l.Own.local(topic, r, v); v.kept(now) {
					got[ownKey{place{b.Topic, b.Claim.Target}, b.Source}] = b.Claim
				}
			}
		}
	}
	same := func(a, b ban.Claim) bool { return a.Compare(b) == 0 }
	if !maps.EqualFunc(got, m.claims, same) {
		t.Fatalf("it holds\n%v\nand the model\n%v", got, m.claims)
	}
	for _, topic := range []ban.Topic{"sshd", "mail"} {
		want := m.says(topic, now)
		if says := l.Own.Claims(topic); !slices.EqualFunc(says, want, same) {
			t.Fatalf("its feed says\n%v\nand the model\n%v", says, want)
		}
		if says := readers.says(topic, now); !slices.EqualFunc(says, want, same) {
			t.Fatalf("readers know\n%v\nand the model says\n%v", says, want)
		}
		banned, bans := map[ban.Target]bool{}, map[ban.Target]bool{}
		for _, e := range l.Enforcement.InForce(topic, 1<<20) {
			banned[e.Target] = true
		}
		for k, c := range m.claims {
			if k.topic == topic && c.End.After(now) {
				bans[k.target] = true
			}
		}
		if !maps.Equal(banned, bans) {
			t.Fatalf("in force are %v, and the model says %v", banned, bans)
		}
	}
}
