package federation

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// bucketCards keeps the newest card of each operator, verbatim.
const bucketCards = "cards"

// cards are the newest card of each operator that is known. Of two cards of one
// serial the one with the greater hash counts, so that everybody who has seen
// both goes by the same. The session's lock is held over every method.
type cards struct {
	own      ban.Operator
	identity *keys.Identity
	store    *store.Store
	log      *slog.Logger
	held     map[ban.Operator]*cardState
	doubted  map[ban.Operator]time.Time // whose card a broker has another one of, since when
	asked    map[ban.Operator]*asking   // for cards that a head names and nobody has delivered
}

// cardState is the newest card of an operator.
type cardState struct {
	card *wire.Card
	raw  []byte
}

// asking is how often something was asked for, and when last.
type asking struct {
	tries int
	at    time.Time
}

func newCards(o *Options) (*cards, error) {
	c := &cards{
		own: o.Identity.Operator(), identity: o.Identity, store: o.Store, log: o.Log,
		held: map[ban.Operator]*cardState{}, asked: map[ban.Operator]*asking{}, doubted: map[ban.Operator]time.Time{},
	}
	err := c.store.View(func(tx store.Tx) error {
		return tx.Each(bucketCards, "", func(k string, v []byte) error {
			raw := slices.Clone(v)
			card, err := wire.OpenCard(raw)
			if err != nil || card.Operator.String() != k {
				c.log.Error("stored_card_damaged", "operator", k, "error", err)
				return nil // the brokers have it
			}
			c.held[card.Operator] = &cardState{card, raw}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the cards: %w", err)
	}
	c.refreshOwn()
	return c, nil
}

// refreshOwn takes the identity's card if it is newer, and says whether it was.
func (c *cards) refreshOwn() bool {
	card, raw := c.identity.Card()
	if card == nil || !c.newer(card) {
		return false
	}
	c.held[c.own] = &cardState{card, raw}
	return true
}

// of gives an operator's card, or nil.
func (c *cards) of(o ban.Operator) *wire.Card {
	if s := c.held[o]; s != nil {
		return s.card
	}
	return nil
}

// newer says whether a card takes the place of the one that is held.
func (c *cards) newer(card *wire.Card) bool {
	old := c.of(card.Operator)
	return old == nil || card.Newer(old.Serial, old.Hash)
}

// lacks says whether a card that somebody names is newer than the one held.
func (c *cards) lacks(o ban.Operator, serial uint64, hash wire.Hash) bool {
	if serial == 0 {
		return false
	}
	old := c.of(o)
	return old == nil || serial > old.Serial || serial == old.Serial && bytes.Compare(hash[:], old.Hash[:]) > 0
}

// take takes a verified card if it is newer, and says whether it was. An own
// card must be one for this node as well.
func (c *cards) take(card *wire.Card, raw []byte, fx *effects) bool {
	if old := c.of(card.Operator); old != nil && old.Serial == card.Serial && old.Hash != card.Hash {
		c.log.Error("operator_signed_two_cards", "operator", card.Operator, "serial", card.Serial)
	}
	if !c.newer(card) {
		return false
	}
	if card.Operator == c.own {
		if err := c.identity.InstallCard(raw); err != nil {
			c.log.Error("own_card_refused", "error", err)
			return false
		}
		if !c.refreshOwn() {
			return false
		}
		card, raw = c.held[c.own].card, c.held[c.own].raw
	}
	c.held[card.Operator] = &cardState{card, raw}
	delete(c.asked, card.Operator)
	fx.mark(bucketCards, card.Operator.String(), raw)
	c.log.Info("card_accepted", "operator", card.Operator, "serial", card.Serial, "nodes", len(card.Certificates))
	return true
}

// keep stores a card at once.
func (c *cards) keep(card *wire.Card, raw []byte) error {
	err := c.store.Update(func(tx store.Tx) error { return tx.Put(bucketCards, card.Operator.String(), raw) })
	if err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	return nil
}

// doubt asks for a card that is held: a broker has another one.
func (c *cards) doubt(o ban.Operator, now time.Time) {
	c.doubted[o] = now
}

// doubtFor is how long a broker that has another card is asked for it.
const doubtFor = 30 * time.Second

// ask gives how often the cards of operators have been asked for, with one more
// time where that is due, and forgets those that nobody lacks any more.
func (c *cards) ask(missing map[ban.Operator]bool, now time.Time) map[ban.Operator]int {
	out := make(map[ban.Operator]int, len(missing))
	for o, since := range c.doubted {
		if now.Sub(since).Abs() > doubtFor {
			delete(c.doubted, o)
			continue
		}
		missing[o] = true
	}
	for o := range c.asked {
		if !missing[o] {
			delete(c.asked, o)
		}
	}
	for o := range missing {
		a := c.asked[o]
		if a == nil {
			a = &asking{at: now}
			c.asked[o] = a
		}
		if wait := min(time.Minute, 2*time.Second<<min(a.tries, 5)); now.Sub(a.at) >= wait || now.Before(a.at) {
			a.tries, a.at = a.tries+1, now
		}
		out[o] = a.tries
	}
	return out
}
