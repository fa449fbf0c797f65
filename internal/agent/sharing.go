package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// sharing is the node's part in the network: its session with the brokers, its
// own feeds, and the broker that it runs itself where none is named.
type sharing struct {
	o        sharingOptions
	identity *keys.Identity
	session  *federation.Session
	network  string
	brokers  []config.Broker
	copied   bool // the keys that were here are another machine's
	indexes  *natsIndexes

	mu    sync.Mutex
	fault error // why our own feeds are not as they ought to be; nil when they are
	// disputing are the topics in which something was disputed since the start.
	disputing map[ban.Topic]bool
	// broker is the embedded one, nil where others are named and while nothing
	// is shared; served says that it ran, so that it closed itself.
	broker *broker.Broker
	opened config.EmbeddedBroker // the settings that it was opened with
	served bool
	// begun is closed once there is an embedded broker; nil where a running
	// node cannot begin one.
	begun chan struct{}
}

// sharingOptions are the inputs of sharing.
type sharingOptions struct {
	settings func() *settings.Settings
	// news is told that documents of others arrived.
	news func(context.Context) error
	// heard is told of each change of a peer's feed before it counts; nil: nobody.
	heard  func(ban.Change)
	ledger *ledger.Ledger
	store  *store.Store
	state  string // the state directory
	now    func() time.Time
	log    *slog.Logger
	// machine tells this machine from copies of it, "" where nothing does.
	machine string
}

// publishAgain is how soon our own feeds are tried again after they could not
// be written. Detection and enforcement go on meanwhile.
const publishAgain = 10 * time.Second

// newSharing opens keys, the session and the embedded broker, and connects to
// nothing yet.
func newSharing(ctx context.Context, o sharingOptions) (_ *sharing, err error) {
	conf := o.settings().Config()
	s := &sharing{o: o, network: conf.Network, brokers: conf.Brokers, indexes: newNATSIndexes(o.log)}
	if s.identity, err = keys.Open(o.state, "", o.now()); err != nil {
		return nil, fmt.Errorf("opening the node's keys: %w", err)
	}
	if s.copied, err = s.identity.Bind(o.machine, o.now()); err != nil {
		return nil, fmt.Errorf("opening the node's keys: %w", err)
	}
	if s.copied {
		o.log.Warn("this is a copy of another machine's state: it has a key of its own from now on", slog.String("node", s.identity.Node().String()))
	}
	var brokers []federation.Broker
	for _, b := range conf.Brokers {
		x, err := settings.BrokerOf(b)
		if err != nil {
			return nil, fmt.Errorf("broker %s: %w", b.URL, err)
		}
		x.Avoid = s.indexes.add(b)
		brokers = append(brokers, x)
	}
	switch url := laterURL(o.state, o.settings()); {
	case wantsBroker(o.settings()):
		url, err := s.embed(ctx, conf.EmbeddedBroker)
		if err != nil {
			return nil, err
		}
		brokers = append(brokers, federation.Broker{URL: url})
	case url != "":
		s.begun = make(chan struct{})
		brokers = append(brokers, federation.Broker{URL: url, Ready: s.begun})
	}
	if err := s.open(brokers); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// open makes the session of an identity.
func (s *sharing) open(brokers []federation.Broker) (err error) {
	s.session, err = federation.New(federation.Options{
		Network: s.network, Brokers: brokers, Identity: s.identity, Store: s.o.store, Now: s.o.now, Log: s.o.log,
		Commit: func(_ context.Context, write func(store.Tx) error, changes iter.Seq[ban.Change]) error {
			return s.o.ledger.Peers.ApplyAll(func(yield func(ban.Change) bool) {
				for c := range changes {
					if s.o.heard != nil {
						s.o.heard(c)
					}
					if !yield(c) {
						return
					}
				}
			}, write)
		},
		Disputed: func(_ context.Context, f ban.Feed, claims []ban.Claim) error {
			list := make([]ledger.Dispute, 0, len(claims))
			for _, c := range claims {
				list = append(list, ledger.Dispute{Target: c.Target, End: c.End})
			}
			return s.o.ledger.Peers.Dispute(f, list)
		},
		Trusted: func(o ban.Operator) (string, bool) {
			name := s.o.settings().NameOf(o)
			return name, name != o.String()
		},
	})
	if err != nil {
		return fmt.Errorf("joining the network: %w", err)
	}
	return nil
}

// close closes the embedded broker where it was opened and never ran.
func (s *sharing) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broker == nil || s.served {
		return nil
	}
	return s.broker.Close()
}

// restore gives the ledger the feeds as they were last heard, under the
// settings in force.
func (s *sharing) restore(ctx context.Context) error {
	s.follow(s.o.settings())
	if err := s.session.Restore(ctx); err != nil {
		return fmt.Errorf("restoring the claims of others: %w", err)
	}
	return nil
}

// note keeps the fault of our own feeds for status and for run.
func (s *sharing) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.o.log.Error("own bans not published", slog.Any("error", err))
	}
	s.fault = err
}

func (s *sharing) wrong() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// follow tells the session whom the policy listens to, this operator's other
// nodes among them.
func (s *sharing) follow(next *settings.Settings) {
	var list, wallets []federation.Following
	for _, t := range next.Topics() {
		if !t.Subscribe {
			continue
		}
		for _, o := range next.Policy().As(s.Operator()).Operators(t.Topic) {
			list = append(list, federation.Following{Topic: t.Topic, Operator: o})
			if t.Definition.Target == "wallet" {
				wallets = append(wallets, federation.Following{Topic: t.Topic, Operator: o})
			}
		}
	}
	s.session.Follow(list)
	s.session.ReadLists(wallets)
	if b := s.embedded(); b != nil {
		b.SetOperators(s.acquainted(next))
	}
	// Commands may have signed something, too.
	s.session.Refresh()
}

// publish makes the feeds of the topics that are opted in equal to the own
// claims, and withdraws the others.
func (s *sharing) publish(next *settings.Settings) (err error) {
	defer func() { s.note(err) }()
	var list []ban.Topic
	for _, t := range next.Topics() {
		if !t.Publish {
			continue
		}
		list = append(list, t.Topic)
		if err := s.session.SaySnapshot(t.Topic, s.o.ledger.Own.Claims(t.Topic)); err != nil {
			return fmt.Errorf("publishing %s: %w", t.Topic, err)
		}
	}
	s.session.Publish(list)
	return s.Dispute()
}

// run publishes own claims as they change, and holds the session and the
// embedded broker.
func (s *sharing) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.runEmbedded(running) })
	group.Go(func() error { return s.session.Run(running) })
	group.Go(func() error { return s.takeNews(running) })
	group.Go(func() error { return s.indexes.run(running) })
	group.Go(func() error {
		again := time.NewTicker(publishAgain)
		defer again.Stop()
		for {
			select {
			case <-running.Done():
				return nil
			case <-s.o.ledger.Own.Changed():
				if err := s.announce(); err != nil {
					s.note(err)
				}
			case <-again.C:
				// After a failed write the feeds are made equal to the ledger as
				// a whole.
				if s.wrong() != nil {
					_ = s.publish(s.o.settings()) // noted
				}
			}
		}
	})
	return group.Wait()
}

// announce hands on the changes of our own claims: this is the only place that
// does, and the ledger gives it nothing of others.
func (s *sharing) announce() error {
	conf := s.o.settings()
	var errs []error
	for _, c := range s.o.ledger.Own.Take() {
		if t, ok := conf.Find(c.Topic); !ok || !t.Publish {
			continue
		}
		if err := s.session.Say(c.Topic, c.Claims, c.Withdrawn); err != nil {
			errs = append(errs, fmt.Errorf("publishing %s: %w", c.Topic, err))
		}
	}
	return errors.Join(errs...)
}

// needsRestart names a setting that a running session cannot take over, or "".
func (s *sharing) needsRestart(next *settings.Settings) string {
	switch {
	case next.Config().Network != s.network:
		return "the network's name"
	case !reflect.DeepEqual(next.Config().Brokers, s.brokers):
		return "the list of brokers"
	case wantsBroker(next) && s.embedded() == nil && (s.begun == nil || next.Config().EmbeddedBroker.Listen != ""):
		return "the embedded broker, which something is now published to or accepted from"
	case s.embedded() != nil && next.Config().EmbeddedBroker.MaxBytes != s.opened.MaxBytes:
		return "embedded_broker.max_bytes"
	case s.embedded() != nil && (next.Config().EmbeddedBroker.Listen != s.opened.Listen || next.Config().EmbeddedBroker.TLS != s.opened.TLS):
		return "the embedded broker's address"
	}
	return ""
}

// Operator implements [api.Sharing].
func (s *sharing) Operator() ban.Operator { return s.identity.Operator() }

// Node implements [api.Sharing].
func (s *sharing) Node() ban.Node { return s.identity.Node() }

// Siblings implements [api.Sharing].
func (s *sharing) Siblings() (n int) {
	card, _ := s.identity.Card()
	if card == nil {
		return 0
	}
	for _, x := range card.Certificates {
		if x.Key != s.identity.NodeKey() && card.Certifies(x.Key, s.o.now()) == nil {
			n++
		}
	}
	return n
}

// Embedded implements [api.Sharing].
func (s *sharing) Embedded() string {
	if b := s.embedded(); b != nil {
		list := b.Addrs() // the socket of this node comes first
		return list[len(list)-1].String()
	}
	return ""
}

// Feeds implements [api.Sharing].
func (s *sharing) Feeds() []federation.FeedStatus { return s.session.Feeds() }

// Release implements [api.Sharing].
func (s *sharing) Release(o ban.Operator) (int, error) { return s.session.Release(o) }

// TrustLists implements [api.Sharing].
func (s *sharing) TrustLists() []federation.TrustList { return s.session.TrustLists() }

// Definitions implements [api.Sharing].
func (s *sharing) Definitions() []federation.PublishedDefinition { return s.session.Definitions() }

// Counts implements [api.Sharing].
func (s *sharing) Counts() federation.Counts { return s.session.Counts() }

// CertificateEnd implements [api.Sharing].
func (s *sharing) CertificateEnd() time.Time { return s.identity.Expires() }

// Lists implements [api.Sharing].
func (s *sharing) Lists() []federation.PublishedList { return s.session.Lists() }

// Card implements [api.Sharing].
func (s *sharing) Card(o ban.Operator) string {
	card, raw := s.session.Card(o)
	if card == nil {
		return ""
	}
	return wire.CardText(raw)
}

// Brokers implements [api.Sharing].
func (s *sharing) Brokers() []control.BrokerStatus {
	list := []control.BrokerStatus{}
	for _, b := range s.session.Brokers() {
		list = append(list, control.BrokerStatus{
			URL: b.URL, Connected: b.Connected, Since: b.Since, Error: b.Error, Advice: b.Advice, Refused: b.Refused, Lost: b.Lost, Health: string(b.Health), Refusal: wire.Refusals[b.Refusal.Reason],
			Unanswered: b.Unanswered, UnansweredSince: b.UnansweredSince, Contended: b.Contended,
		})
	}
	return list
}

// Warnings implements [api.Sharing].
func (s *sharing) Warnings() (list []control.Warning) {
	if len(s.session.Published()) > 0 {
		list = standing(s.identity).warn(s.o.now())
	}
	if s.copied {
		list = append(list, api.Copied.Warn(fmt.Sprintf("this machine started on a copy of another one's state, and is node %s now", s.identity.Node()), ""))
	}
	if last, err := s.session.Rekeyed(); err != nil {
		s.o.log.Error("the last new key is not known", slog.Any("error", err))
	} else if last != nil {
		list = append(list, warnRekeyed(*last, s.identity.Node(), s.o.now())...)
	}
	list = append(list, warnFeeds(s.session.Feeds(), s.o.now())...)
	list = append(list, warnBrokers(s.Brokers(), s.network, s.o.now())...)
	list = append(list, s.indexes.warnings()...)
	if err := s.wrong(); err != nil {
		list = append(list, api.Unpublished.Warn("this node's own bans are in force here but not published: "+err.Error(), ""))
	}
	return list
}

// unansweredFor is how long a broker may take to acknowledge a message.
const unansweredFor = 5 * time.Second

// warnBrokers gives the conditions of brokers.
func warnBrokers(brokers []control.BrokerStatus, network string, now time.Time) (list []control.Warning) {
	up, advice := 0, ""
	var urls []string
	for _, b := range brokers {
		if b.Refused > 0 {
			list = append(list, api.BrokerRefuses.Warn(
				fmt.Sprintf("%s refuses %d of this node's subscriptions, so that claims of peers may be missing; they are asked for again", b.URL, b.Refused),
				fmt.Sprintf("does the broker serve the network %q (network in agent.toml)? else its access rules; docs/broker.md says what agents need", network)))
		}
		if b.Contended {
			list = append(list, api.Contended.Warn(fmt.Sprintf("%s ends this node's connection again and again soon after it is made: another machine uses this node's keys, or the broker is not well", b.URL), ""))
		}
		if b.Unanswered > 0 && now.Sub(b.UnansweredSince) > unansweredFor {
			list = append(list, api.Unanswered.Warn(fmt.Sprintf("%s has not acknowledged %d messages of this node, the oldest for %s: bans that are made here may not have reached anybody", b.URL, b.Unanswered, now.Sub(b.UnansweredSince).Round(time.Second)), ""))
		}
		if b.Refusal != "" && b.Lost > 0 {
			// The read-backs failed, and the broker says why.
			list = append(list, api.BrokerKeepsNone.Warn(fmt.Sprintf("%s acknowledged %d messages of this node and does not keep them; it says why: %s", b.URL, b.Lost, b.Refusal), ""))
			b.Lost = 0
		} else if b.Refusal != "" {
			list = append(list, api.BrokerKeepsNone.Warn(fmt.Sprintf("%s says that it keeps none of this node's messages: %s", b.URL, b.Refusal), ""))
		}
		if b.Health == string(federation.HealthMisbehaving) {
			list = append(list, api.BrokerMisbehaves.Warn(fmt.Sprintf("%s breaks the MQTT protocol, so that the connection was ended: %s", b.URL, b.Error), b.Advice))
		}
		if b.Lost > 0 {
			list = append(list, api.BrokerLoses.Warn(fmt.Sprintf("%s acknowledged %d messages of this node and does not keep them, so that late joiners lack its bans; they are sent again", b.URL, b.Lost), ""))
		}
		if b.Connected {
			up++
		}
		urls, advice = append(urls, b.URL), cmp.Or(advice, b.Advice)
	}
	if up == 0 && len(urls) > 0 {
		list = append(list, api.NoBroker.Warn("no broker answers, so nothing new is shared or heard; bans that are in force stay: "+strings.Join(urls, ", "), advice))
	}
	return list
}
