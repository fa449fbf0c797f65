package ledger

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// Exemptions is the targets that people unbanned or allowed.
type Exemptions struct {
	*book
	own *Own
}

const exemptBucket = "ledger.exempt"

// An Exemption shields a target, and everything that overlaps it.
type Exemption struct {
	Target ban.Target `json:"target"`
	// Topic is the only topic that an unban is about; "" is all of them.
	Topic ban.Topic `json:"topic,omitempty"`
	// Allow shields from every claim, this node's own detection included. An
	// unban (Allow false) shields from the claims of others: a new offence here
	// still bans.
	Allow bool `json:"allow"`
	// Dispute says that others are told, as a signed dispute.
	Dispute bool `json:"dispute,omitempty"`
	// Until is the end; the zero time is never.
	Until   time.Time `json:"until,omitzero"`
	Since   time.Time `json:"since"`
	Comment string    `json:"comment,omitempty"`
}

// Limits and defaults of exemptions.
const (
	// DefaultUnban is how long an unban beats the claims of others.
	DefaultUnban = 7 * 24 * time.Hour
	// maxExemptions bounds the exemptions made by hand.
	maxExemptions = 100_000
	maxComment    = 500
)

func (e Exemption) key() string {
	if e.Allow {
		return "allow " + e.Target.String()
	}
	if e.Topic != "" {
		return "unban " + e.Target.String() + " " + string(e.Topic)
	}
	return "unban " + e.Target.String()
}

func (e Exemption) String() string {
	s := "unbanned here"
	if e.Allow {
		s = "allowed here"
	}
	s += ": " + e.Target.String()
	if e.Topic != "" {
		s += " in " + string(e.Topic)
	}
	if !e.Until.IsZero() {
		s += " until " + e.Until.UTC().Format(time.RFC3339)
	}
	if e.Comment != "" {
		s += " (" + e.Comment + ")"
	}
	return s
}

func (e Exemption) over(now time.Time) bool { return !e.Until.IsZero() && !e.Until.After(now) }

// exemptions are the targets that people unbanned and allowed.
type exemptions struct {
	of                map[string]Exemption
	unbanned, allowed shields
	inTopic           map[ban.Topic]shields // unbanned in one topic only
	next              time.Time             // the first end, or zero
}

// shields find an exemption by target.
type shields struct {
	prefixes ban.Prefixes[Exemption]
	others   map[ban.Target]Exemption
}

// Protects implements policy.Protection.
func (s shields) Protects(t ban.Target) (string, bool) {
	if p, ok := t.Prefix(); ok {
		_, e, ok := s.prefixes.Overlaps(p)
		if !ok {
			return "", false
		}
		return e.String(), true
	}
	e, ok := s.others[t]
	if !ok {
		return "", false
	}
	return e.String(), true
}

func (x *exemptions) init() { x.of = map[string]Exemption{} }

func (x *exemptions) load(tx store.Tx, now time.Time) error {
	err := tx.Each(exemptBucket, "", func(key string, value []byte) error {
		var e Exemption
		if err := json.Unmarshal(value, &e); err != nil || e.key() != key {
			return fmt.Errorf("exemption %q: %w", key, ErrCorrupt)
		}
		x.of[key] = e
		return nil
	})
	x.build(now)
	return err
}

// build makes the tables anew, without exemptions that are over.
func (x *exemptions) build(now time.Time) {
	x.next = time.Time{}
	for key, e := range x.of {
		if e.over(now) {
			delete(x.of, key)
		} else if !e.Until.IsZero() && (x.next.IsZero() || e.Until.Before(x.next)) {
			x.next = e.Until
		}
	}
	pick := func(allow bool, topic ban.Topic) shields {
		s := shields{others: map[ban.Target]Exemption{}}
		s.prefixes = ban.NewPrefixes(func(yield func(netip.Prefix, Exemption) bool) {
			for _, e := range x.of {
				if e.Allow != allow || e.Topic != topic {
					continue
				}
				if p, ok := e.Target.Prefix(); !ok {
					s.others[e.Target] = e
				} else if !yield(p, e) {
					return
				}
			}
		})
		return s
	}
	x.unbanned, x.allowed = pick(false, ""), pick(true, "")
	x.inTopic = nil
	for _, e := range x.of {
		if _, ok := x.inTopic[e.Topic]; !ok && e.Topic != "" {
			if x.inTopic == nil {
				x.inTopic = map[ban.Topic]shields{}
			}
			x.inTopic[e.Topic] = pick(false, e.Topic)
		}
	}
}

// exempt gives the unbans in a topic and everywhere.
func (x *exemptions) exempt(topic ban.Topic) policy.Protection {
	if s, ok := x.inTopic[topic]; ok {
		return both{s, x.unbanned}
	}
	return x.unbanned
}

// both shields the targets that either shields.
type both [2]shields

// Protects implements policy.Protection.
func (b both) Protects(t ban.Target) (string, bool) {
	if why, ok := b[0].Protects(t); ok {
		return why, true
	}
	return b[1].Protects(t)
}

// expire reports whether an exemption ended.
func (x *exemptions) expire(now time.Time) bool {
	if x.next.IsZero() || now.Before(x.next) {
		return false
	}
	x.build(now)
	return true
}

// unbannedAt says when a person last lifted the bans of a target in a topic:
// its offences before then are forgiven. It is zero where nobody did.
func (x *exemptions) unbannedAt(topic ban.Topic, target ban.Target) (at time.Time) {
	if _, ok := x.exempt(topic).Protects(target); !ok {
		return at
	}
	// Several may overlap it, and the newest counts.
	prefix, isAddress := target.Prefix()
	for _, e := range x.of {
		if e.Allow || e.Topic != "" && e.Topic != topic || !e.Since.After(at) {
			continue
		}
		if p, ok := e.Target.Prefix(); e.Target == target || ok && isAddress && p.Overlaps(prefix) {
			at = e.Since
		}
	}
	return at
}
