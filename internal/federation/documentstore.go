package federation

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A library holds the newest trust list and topic definitions of each operator
// that is read, and of our own. What was read once is never replaced by
// something older, whatever a broker serves.
type library struct {
	held map[wire.Name]*wire.Message
	// Whose lists and definitions are wanted; our own always are.
	trust, definitions map[ban.Operator]bool
	allowances         map[ban.Operator]*allowance
	news               chan struct{} // capacity one: something has changed
}

// bucketDocuments keeps the newest document of each name, verbatim, by its
// MQTT topic.
const bucketDocuments = "documents"

// MaxDefinitions bounds the topic definitions that are kept of one operator.
const MaxDefinitions = 64

// Rates at which cards and documents of one operator are verified: they change
// rarely, and are retained.
const (
	documentBurst  = 256
	documentSecond = 8
)

func newLibrary() library {
	return library{
		held: map[wire.Name]*wire.Message{}, trust: map[ban.Operator]bool{}, definitions: map[ban.Operator]bool{},
		allowances: map[ban.Operator]*allowance{}, news: make(chan struct{}, 1),
	}
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

// ReadDocuments sets whose trust lists and whose topic definitions are read:
// the whole desired sets.
func (s *Session) ReadDocuments(trust, definitions []ban.Operator) {
	s.mu.Lock()
	s.library.trust, s.library.definitions = setOf(trust), setOf(definitions)
	s.mu.Unlock()
	s.changed()
}

func setOf(list []ban.Operator) map[ban.Operator]bool {
	out := make(map[ban.Operator]bool, len(list))
	for _, o := range list {
		out[o] = true
	}
	return out
}

// News is told when a document that is read has changed.
func (s *Session) News() <-chan struct{} { return s.library.news }

// TrustLists gives the lists of those whose lists are read, sorted.
func (s *Session) TrustLists() (out []TrustList) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, m := range s.library.held {
		if t, ok := m.Body.(*wire.Trust); ok && s.library.trust[n.Operator] {
			out = append(out, TrustList{n.Operator, m.Header.Number, m.Header.Issued, t.Operators})
		}
	}
	slices.SortFunc(out, func(a, b TrustList) int { return slices.Compare(a.Operator[:], b.Operator[:]) })
	return out
}

// Definitions gives the topic definitions of those whose are read, without
// those that were withdrawn, sorted by topic and operator.
func (s *Session) Definitions() (out []PublishedDefinition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, m := range s.library.held {
		if t, ok := m.Body.(*wire.Definition); ok && s.library.definitions[n.Operator] && t.Text != "" {
			out = append(out, PublishedDefinition{n.Operator, n.Topic, m.Header.Number, m.Header.Issued, t.Text})
		}
	}
	slices.SortFunc(out, func(a, b PublishedDefinition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), slices.Compare(a.Operator[:], b.Operator[:]))
	})
	return out
}

// reads says whether a document of this name is wanted. s.mu is held.
func (s *Session) reads(n wire.Name) bool {
	if n.Operator == s.own {
		return true
	}
	if n.Kind == wire.KindTrust {
		return s.library.trust[n.Operator]
	}
	return s.library.definitions[n.Operator]
}

// onDocument takes a trust list or topic definition if it is newer than the
// one at hand. s.mu is held.
func (s *Session) onDocument(n wire.Name, p packet, fx *effects) {
	switch {
	case !s.reads(n):
		s.refuse(refusedUnknown)
		return
	case !s.allowDocument(n.Operator, fx.now):
		s.refuse(refusedRate)
		return
	}
	if n.Operator == s.own && p.link != nil {
		p.link.saw(n, p.payload)
	}
	if len(p.payload) == 0 {
		s.refuse(refusedEmpty)
		return
	}
	m, err := s.verified.Open(n, p.payload)
	if err != nil {
		s.refuse(reasonOf(err))
		return
	}
	old := s.library.held[n]
	switch {
	case m.Header.Ahead(fx.now):
		s.refuse(refusedFuture)
	case old != nil && m.Header.Number < old.Header.Number:
		s.refuse(refusedReplay)
	case old != nil && m.Header.Number == old.Header.Number:
		if m.Hash != old.Hash {
			s.o.Log.Error("operator_signed_two_documents", "document", n, "number", m.Header.Number)
		}
	case old == nil && n.Kind == wire.KindDefinition && s.countDefinitions(n.Operator) >= MaxDefinitions:
		s.refuse(refusedSize)
	default:
		s.library.held[n] = m
		fx.write(bucketDocuments, n.String(), p.payload)
		fx.news = true
		s.o.Log.Info("document_accepted", "document", n, "number", m.Header.Number)
	}
}

func (s *Session) countDefinitions(o ban.Operator) (count int) {
	for n := range s.library.held {
		if n.Operator == o && n.Kind == wire.KindDefinition {
			count++
		}
	}
	return count
}

// allowDocument takes a token of the operator's bucket. s.mu is held.
func (s *Session) allowDocument(o ban.Operator, now time.Time) bool {
	a := s.library.allowances[o]
	if a == nil {
		a = &allowance{burst: documentBurst, second: documentSecond}
		s.library.allowances[o] = a
	}
	return a.take(now)
}

// loadDocuments reads what is held of this network.
func (s *Session) loadDocuments() error {
	err := s.o.Store.View(func(tx store.Tx) error {
		return tx.Each(bucketDocuments, wire.Prefix+s.o.Network+"/", func(k string, v []byte) error {
			n, err := wire.ParseTopicName(k)
			if err == nil {
				var m *wire.Message
				if m, err = wire.Open(n, slices.Clone(v)); err == nil {
					s.library.held[n] = m
				}
			}
			if err != nil {
				s.o.Log.Error("stored_document_damaged", "document", k, "error", err)
			}
			return nil // the brokers have it
		})
	})
	if err != nil {
		return fmt.Errorf("reading the documents: %w", err)
	}
	return nil
}

// takeOwnDocuments takes over what commands have signed since the last look.
func (s *Session) takeOwnDocuments() error {
	offered, err := s.o.Identity.Documents()
	var faults []error
	for _, m := range offered {
		if m.Name.Network != s.o.Network {
			continue
		}
		s.mu.Lock()
		old := s.library.held[m.Name]
		s.mu.Unlock()
		if old != nil && old.Header.Number >= m.Header.Number {
			continue
		}
		if err := s.o.Store.Update(func(tx store.Tx) error { return tx.Put(bucketDocuments, m.Name.String(), m.Raw) }); err != nil {
			faults = append(faults, fmt.Errorf("keeping %v: %w", m.Name, err))
			continue
		}
		s.mu.Lock()
		s.library.held[m.Name] = m
		s.mu.Unlock()
		s.tellNews()
	}
	return errors.Join(append(faults, err)...)
}

func (s *Session) tellNews() {
	select {
	case s.library.news <- struct{}{}:
	default:
	}
}
