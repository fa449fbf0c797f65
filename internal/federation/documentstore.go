package federation

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A documentStore holds the newest trust list, topic definitions and lists of
// wallets of each operator that is read, and of our own. A document is never replaced by an
// older one, whatever a broker serves. The session's lock is held over every
// method but those that say otherwise.
type documentStore struct {
	network  string
	own      ban.Operator
	identity *keys.Identity
	store    *store.Store
	log      *slog.Logger
	opener   *opener

	held map[wire.Name]*wire.Message
	// Whose lists and definitions are wanted; our own always are.
	trust, definitions map[ban.Operator]bool
	lists              map[Following]bool
	allowances         map[ban.Operator]*allowance
	news               chan struct{} // capacity one: something has changed
}

// bucketDocuments keeps the newest document of each name, verbatim, by its
// MQTT topic.
const bucketDocuments = "documents"

// MaxDefinitions bounds the topic definitions that are kept of one operator, and
// its own lists.
const MaxDefinitions = 64

// newDocumentStore reads the documents that are held of a network.
func newDocumentStore(o *Options, opener *opener) (*documentStore, error) {
	d := &documentStore{
		network: o.Network, own: o.Identity.Operator(), identity: o.Identity, store: o.Store, log: o.Log, opener: opener,
		held: map[wire.Name]*wire.Message{}, trust: map[ban.Operator]bool{}, definitions: map[ban.Operator]bool{}, lists: map[Following]bool{},
		allowances: map[ban.Operator]*allowance{}, news: make(chan struct{}, 1),
	}
	err := d.store.View(func(tx store.Tx) error {
		return tx.Each(bucketDocuments, wire.Prefix+d.network+"/", func(k string, v []byte) error {
			n, err := wire.ParseTopicName(k)
			if err == nil {
				var m *wire.Message
				if m, err = wire.Open(n, slices.Clone(v)); err == nil {
					d.held[n] = m
				}
			}
			if err != nil {
				d.log.Error("stored_document_damaged", "document", k, "error", err)
			}
			return nil // the brokers have it
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the documents: %w", err)
	}
	return d, nil
}

// TrustList is an operator's published list as it is held here.
type TrustList struct {
	Operator ban.Operator   `json:"operator"`
	Number   uint64         `json:"number"`
	Issued   time.Time      `json:"issued"`
	Trusted  []wire.Trusted `json:"trusted"`
}

// PublishedDefinition is a topic definition that an operator publishes. Text
// is foreign: it is shown to a person before anything is done with it.
type PublishedDefinition struct {
	Operator ban.Operator `json:"operator"`
	Topic    ban.Topic    `json:"topic"`
	Number   uint64       `json:"number"`
	Issued   time.Time    `json:"issued"`
	Text     string       `json:"text"`
}

// PublishedList is an operator's document about the wallets that it denies in a
// topic. All of it is foreign.
type PublishedList struct {
	Operator ban.Operator
	Topic    ban.Topic
	Number   uint64
	Issued   time.Time
	*wire.List
}

func setOf(list []ban.Operator) map[ban.Operator]bool {
	out := make(map[ban.Operator]bool, len(list))
	for _, o := range list {
		out[o] = true
	}
	return out
}

// trustLists gives the lists of those whose lists are read, sorted.
func (d *documentStore) trustLists() (out []TrustList) {
	for n, m := range d.held {
		if t, ok := m.Body.(*wire.Trust); ok && d.trust[n.Operator] {
			out = append(out, TrustList{n.Operator, m.Header.Number, m.Header.Issued, t.Operators})
		}
	}
	slices.SortFunc(out, func(a, b TrustList) int { return slices.Compare(a.Operator[:], b.Operator[:]) })
	return out
}

// published gives the topic definitions of those whose are read, without those
// that were withdrawn, sorted by topic and operator.
func (d *documentStore) published() (out []PublishedDefinition) {
	for n, m := range d.held {
		if t, ok := m.Body.(*wire.Definition); ok && d.definitions[n.Operator] && t.Text != "" {
			out = append(out, PublishedDefinition{n.Operator, n.Topic, m.Header.Number, m.Header.Issued, t.Text})
		}
	}
	slices.SortFunc(out, func(a, b PublishedDefinition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), slices.Compare(a.Operator[:], b.Operator[:]))
	})
	return out
}

// walletLists gives the lists that are read, without those that were withdrawn,
// sorted by topic and operator.
func (d *documentStore) walletLists() (out []PublishedList) {
	for n, m := range d.held {
		if l, ok := m.Body.(*wire.List); ok && d.lists[Following{n.Topic, n.Operator}] && !l.Withdrawn() {
			out = append(out, PublishedList{n.Operator, n.Topic, m.Header.Number, m.Header.Issued, l})
		}
	}
	slices.SortFunc(out, func(a, b PublishedList) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), slices.Compare(a.Operator[:], b.Operator[:]))
	})
	return out
}

// reads says whether a document of this name is wanted.
func (d *documentStore) reads(n wire.Name) bool {
	if n.Operator == d.own {
		return true
	}
	switch n.Kind {
	case wire.KindTrust:
		return d.trust[n.Operator]
	case wire.KindList:
		return d.lists[Following{n.Topic, n.Operator}]
	}
	return d.definitions[n.Operator]
}

// hear takes a document if it is newer than the one at hand.
func (d *documentStore) hear(n wire.Name, p packet, fx *effects) {
	counts := d.opener.counts
	if !d.reads(n) {
		counts.refuse(refusedUnknown)
		return
	}
	if n.Operator == d.own && p.link != nil {
		p.link.saw(n, p.payload)
	}
	if len(p.payload) == 0 {
		counts.refuse(refusedEmpty)
		return
	}
	m, fresh, ok := d.opener.open(n, p, fx.now)
	switch {
	case !ok:
		return
	case fresh && !d.allow(n.Operator, fx.now):
		counts.refuse(refusedRate)
		return
	}
	old := d.held[n]
	switch {
	case m.Header.Ahead(fx.now):
		counts.refuse(refusedFuture)
	case old != nil && m.Header.Number < old.Header.Number:
		counts.refuse(refusedReplay)
	case old != nil && m.Header.Number == old.Header.Number:
		if m.Hash != old.Hash {
			d.log.Error("operator_signed_two_documents", "document", n, "number", m.Header.Number)
		}
	case old == nil && n.Kind.HasTopic() && d.count(n.Operator, n.Kind) >= MaxDefinitions:
		counts.refuse(refusedSize)
	default:
		d.held[n] = m
		fx.mark(bucketDocuments, n.String(), p.payload)
		fx.news = true
		d.log.Info("document_accepted", "document", n, "number", m.Header.Number)
	}
}

// count gives how many documents of a kind are held of an operator.
func (d *documentStore) count(o ban.Operator, k wire.Kind) (count int) {
	for n := range d.held {
		if n.Operator == o && n.Kind == k {
			count++
		}
	}
	return count
}

// allow takes a token of the operator's bucket, which cards share.
func (d *documentStore) allow(o ban.Operator, now time.Time) bool {
	a := d.allowances[o]
	if a == nil {
		a = &allowance{burst: documentBurst, second: documentSecond}
		d.allowances[o] = a
	}
	return a.take(now, 1)
}

// unheld gives the documents beside the keys that commands have signed since
// the last look. The lock is not needed for reading the files, so they are given
// first.
func (d *documentStore) unheld(offered []*wire.Message) (out []*wire.Message) {
	for _, m := range offered {
		if old := d.held[m.Name]; m.Name.Network == d.network && (old == nil || old.Header.Number < m.Header.Number) {
			out = append(out, m)
		}
	}
	return out
}

// keep makes documents durable. The session's lock must not be held.
func (d *documentStore) keep(list []*wire.Message) (kept []*wire.Message, err error) {
	var faults []error
	for _, m := range list {
		if err := d.store.Update(func(tx store.Tx) error { return tx.Put(bucketDocuments, m.Name.String(), m.Raw) }); err != nil {
			faults = append(faults, fmt.Errorf("keeping %v: %w", m.Name, err))
			continue
		}
		kept = append(kept, m)
	}
	return kept, errors.Join(faults...)
}

// tellNews says that a document has changed.
func (d *documentStore) tellNews() {
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// outgoing gives our own documents.
func (d *documentStore) outgoing() (out []outgoing) {
	for n, m := range d.held {
		if n.Operator == d.own {
			out = append(out, outgoing{n, m.Raw})
		}
	}
	return out
}

// listen adds the MQTT filters of the documents that are read.
func (d *documentStore) listen(base listening) {
	own := wire.Name{Network: d.network, Kind: wire.KindTrust, Operator: d.own}
	base.always(own.String(), 1)
	base.always(everyTopic(own, wire.KindDefinition), MaxDefinitions/4)
	base.always(everyTopic(own, wire.KindList), MaxDefinitions/4)
	for o := range d.trust {
		base.always(wire.Name{Network: d.network, Kind: wire.KindTrust, Operator: o}.String(), 1)
	}
	for o := range d.definitions {
		base.always(everyTopic(wire.Name{Network: d.network, Operator: o}, wire.KindDefinition), MaxDefinitions/4)
	}
	for f := range d.lists {
		if f.Operator != d.own {
			base.always(wire.Name{Network: d.network, Kind: wire.KindList, Topic: f.Topic, Operator: f.Operator}.String(), 1)
		}
	}
}

// everyTopic is the filter for all documents of a kind of an operator.
func everyTopic(n wire.Name, k wire.Kind) string {
	n.Kind, n.Topic = k, "x"
	return strings.TrimSuffix(n.String(), "x") + "+"
}
