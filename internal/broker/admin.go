package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// A Status is how a broker does.
type Status struct {
	Network       string          `json:"network"`
	Open          bool            `json:"open"` // admits unsigned messages
	Since         time.Time       `json:"since"`
	Listeners     []string        `json:"listeners"`
	Certificates  []Certificate   `json:"certificates"`
	Connections   int             `json:"connections"`
	MaxConnection int             `json:"connections_limit"`
	Sessions      int             `json:"sessions"`
	Subscriptions int             `json:"subscriptions"`
	Retained      retained.Status `json:"retained"`
	BannedKeys    []string        `json:"banned_keys"`
	Draining      bool            `json:"draining"`
	// TurnedAway counts connections that did not become clients, Refused
	// publications that were not admitted, by reason, since the start.
	TurnedAway map[string]uint64 `json:"turned_away"`
	Refused    map[string]uint64 `json:"refused"`
}

// Status gives how the broker does.
func (b *Broker) Status() Status {
	s := Status{
		Network: b.options.Network, Open: b.options.Open, Since: b.started, Connections: int(b.open.Load()), MaxConnection: b.limits.Connections,
		Sessions: b.sessions.len(), Subscriptions: b.index.subscriptions(), Retained: b.store.Status(), BannedKeys: b.banned.all(),
		TurnedAway: byLabel(b.count.turnedAway), Refused: byLabel(b.count.refused), Certificates: b.certificates(),
	}
	for _, l := range b.listeners {
		s.Listeners = append(s.Listeners, l.name())
	}
	b.connsMu.Lock()
	s.Draining = b.closing
	b.connsMu.Unlock()
	return s
}

// Healthy gives nil where the broker serves and its disk takes the messages that it admits.
func (b *Broker) Healthy() error {
	s := b.Status()
	switch {
	case s.Draining:
		return errors.New("draining")
	case s.Retained.Fault != "":
		return errors.New("state cannot be written: " + s.Retained.Fault)
	}
	return nil
}

// A Feed is the retained messages of one node in one topic, or one document of an
// operator.
type Feed struct {
	Name     string    `json:"name"` // network/topic/operator/node, or network/operators/operator/document
	Messages int       `json:"messages"`
	Bytes    int       `json:"bytes"`
	Epoch    uint64    `json:"epoch"`
	Number   uint64    `json:"number"` // the highest
	Heard    time.Time `json:"heard"`
}

// Feeds lists the retained feeds and documents, ordered by name.
func (b *Broker) Feeds() []Feed {
	byName := map[string]*Feed{}
	for _, m := range b.store.All() {
		name := strings.TrimPrefix(feedOf(m.Topic), wire.Prefix)
		f := byName[name]
		if f == nil {
			f = &Feed{Name: name}
			byName[name] = f
		}
		f.Messages++
		f.Bytes += len(m.Payload)
		if cmp.Or(cmp.Compare(m.Epoch, f.Epoch), cmp.Compare(m.Number, f.Number)) > 0 {
			f.Epoch, f.Number = m.Epoch, m.Number
		}
		if m.Received.After(f.Heard) {
			f.Heard = m.Received
		}
	}
	out := make([]Feed, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, *byName[name])
	}
	return out
}

// A Session is a client for those who run the broker.
type Session struct {
	ID            string `json:"id"`
	Who           string `json:"who"`
	Connected     bool   `json:"connected"`
	Subscriptions int    `json:"subscriptions"`
	Address       string `json:"address,omitempty"` // only where addresses are logged
	Queued        int    `json:"queued"`            // bytes that wait for it
}

// Sessions lists the clients, ordered by identifier.
func (b *Broker) Sessions() []Session {
	out := []Session{} // an empty listing is an empty array
	for _, s := range b.sessions.all() {
		s.mu.Lock()
		c := s.c
		s.mu.Unlock()
		s.subsMu.Lock()
		n := Session{ID: s.id, Who: s.who.String(), Subscriptions: len(s.subs), Connected: c != nil}
		s.subsMu.Unlock()
		if c != nil {
			c.out.mu.Lock()
			n.Queued = c.out.queued
			c.out.mu.Unlock()
			if b.options.LogAddresses && c.remote.IsValid() {
				n.Address = c.remote.String()
			}
		}
		out = append(out, n)
	}
	return out
}

// ErrUnknown says that nobody goes by a name.
var ErrUnknown = errors.New("no such client")

// Kick closes the connection of a client, by identifier. It may come back.
func (b *Broker) Kick(id string) error {
	s := b.sessions.get(id)
	if s == nil {
		return fmt.Errorf("%.64q: %w", id, ErrUnknown)
	}
	s.mu.Lock()
	c := s.c
	s.mu.Unlock()
	if c == nil {
		return fmt.Errorf("%.64q: %w", id, ErrUnknown)
	}
	c.kick("kicked")
	return nil
}

// BanKey stops serving an operator or node: its connections are closed, its
// it said is removed, and it is refused from now on.
func (b *Broker) BanKey(identity string) (removed int, err error) {
	if err := b.banned.change(identity, true); err != nil {
		return 0, err
	}
	for _, s := range b.sessions.all() {
		if s.who.method != "key" || s.who.node.String() != identity && s.who.operator.String() != identity {
			continue
		}
		s.mu.Lock()
		c := s.c
		s.mu.Unlock()
		if c != nil {
			c.kick("banned key")
		}
	}
	for _, m := range b.store.All() {
		levels := strings.Split(m.Topic, "/")
		if !slices.Contains(levels[min(len(levels), 3):], identity) {
			continue
		}
		if _, err := b.store.Delete(m.Topic); err == nil {
			removed++
		}
	}
	b.admission.forgetCards()
	b.count.collected.Add(float64(removed))
	b.log.Info("banned key", "identity", identity, "removed", removed)
	return removed, nil
}

// SetOperators replaces the operators whose messages alone are admitted; none
// admits all. Messages that are retained already stay.
func (b *Broker) SetOperators(list []ban.Operator) { b.admission.setOperators(list) }

// UnbanKey serves an operator or node again.
func (b *Broker) UnbanKey(identity string) error { return b.banned.change(identity, false) }

// Backup writes a consistent copy of the retained messages to w, while the
// broker serves.
func (b *Broker) Backup(w io.Writer) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.limits.StallTime)
	defer cancel()
	if err := b.store.Wait(ctx); err != nil {
		return 0, fmt.Errorf("waiting for the disk: %w", err)
	}
	return b.store.Backup(w)
}
