package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// sharing is the node's part in the network: its session with the brokers, its
// own feeds, and the broker that it runs itself where none is named.
type sharing struct {
	a        *agent
	identity *keys.Identity
	session  *federation.Session
	broker   *broker.Broker // nil when others are named
	network  string
	brokers  []config.Broker

	mu    sync.Mutex
	fault error // why our own feeds are not what they ought to be; nil when they are
	// disputing are the topics in which something was disputed since the start.
	disputing map[ban.Topic]bool
}

// publishAgain is how soon our own feeds are tried again after they could not
// be written. Detection and enforcement go on meanwhile.
const publishAgain = 10 * time.Second

// defaultListen is the embedded broker's address: MQTT's port, on loopback.
const defaultListen = "127.0.0.1:1883"

// newSharing opens keys, the session and the embedded broker, and connects to
// nothing yet.
func newSharing(ctx context.Context, a *agent) (_ *sharing, err error) {
	checked := a.settings
	s := &sharing{a: a, network: checked.Config().Network, brokers: checked.Config().Brokers}
	if s.identity, err = keys.Open(a.o.StateDir, "", a.now()); err != nil {
		return nil, fmt.Errorf("opening the node's keys: %w", err)
	}
	var brokers []federation.Broker
	for _, b := range checked.Config().Brokers {
		x, err := settings.BrokerOf(b)
		if err != nil {
			return nil, fmt.Errorf("broker %s: %w", b.URL, err)
		}
		brokers = append(brokers, x)
	}
	embedded := checked.Config().EmbeddedBroker
	if embedded.Enabled == nil && len(brokers) == 0 || embedded.Enabled != nil && *embedded.Enabled {
		if err := s.embed(ctx, embedded.Listen); err != nil {
			return nil, err
		}
		brokers = append(brokers, federation.Broker{URL: "tcp://" + s.broker.Addr().String()})
	}
	if err := s.open(brokers); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// open makes the session of an identity.
func (s *sharing) open(brokers []federation.Broker) (err error) {
	a := s.a
	s.session, err = federation.New(federation.Options{
		Network: s.network, Brokers: brokers, Identity: s.identity, Store: a.store, Now: a.now, Log: a.log,
		Apply: func(_ context.Context, c ban.Change) error { return a.ledger.Apply(c) },
		Disputed: func(_ context.Context, f ban.Feed, claims []ban.Claim) error {
			list := make([]ledger.Dispute, 0, len(claims))
			for _, c := range claims {
				list = append(list, ledger.Dispute{Target: c.Target, End: c.End})
			}
			return a.ledger.Dispute(f, list)
		},
		Trusted: func(o ban.Operator) (string, bool) {
			checked := a.current()
			name := checked.NameOf(o)
			return name, name != o.String()
		},
	})
	if err != nil {
		return fmt.Errorf("joining the network: %w", err)
	}
	return nil
}

// embed opens the broker on loopback. Where the usual port is taken, any other
// does: nobody but this node needs to know it.
func (s *sharing) embed(ctx context.Context, listen string) error {
	options := func(address string) broker.Options {
		return broker.Options{
			Network: s.network, StateDir: filepath.Join(s.a.o.StateDir, "broker"), Keys: true, Now: s.a.now,
			Log:       s.a.log.With(slog.String("part", "broker")),
			Listeners: []broker.Listener{{Kind: broker.TCP, Address: address}},
		}
	}
	var err error
	if listen != "" {
		s.broker, err = broker.New(options(listen))
	} else if s.broker, err = broker.New(options(defaultListen)); errors.Is(err, syscall.EADDRINUSE) {
		s.a.log.InfoContext(ctx, "another broker has MQTT's port; the embedded one takes a free one", slog.String("address", defaultListen))
		s.broker, err = broker.New(options("127.0.0.1:0"))
	}
	if err != nil {
		return fmt.Errorf("opening the embedded broker: %w", err)
	}
	return nil
}

func (s *sharing) close() error {
	if s.broker == nil {
		return nil
	}
	return s.broker.Close()
}

// restore gives the ledger what the feeds said when they were last heard, and
// makes our own feeds say what the ledger has.
func (s *sharing) restore(ctx context.Context) error {
	if err := s.recall(ctx); err != nil {
		return err
	}
	// A full disk must not keep the bans out of the kernel: run tries again.
	_ = s.publish(s.a.settings) // noted
	return nil
}

// recall gives the ledger what the feeds said when they were last heard.
func (s *sharing) recall(ctx context.Context) error {
	checked, err := s.takeTrust(s.a.settings)
	if err != nil {
		return err
	}
	s.a.settings = checked
	s.a.ledger.SetPolicy(checked.Policy())
	s.follow(checked)
	if err := s.session.Restore(ctx); err != nil {
		return fmt.Errorf("restoring the claims of others: %w", err)
	}
	return nil
}

// note keeps what is wrong with our own feeds for status and for run.
func (s *sharing) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.a.log.Error("our own bans are not published", slog.Any("error", err))
	}
	s.fault = err
}

func (s *sharing) wrong() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// follow tells the session whom the policy listens to.
func (s *sharing) follow(next *settings.Settings) {
	var list []federation.Following
	for _, t := range next.Topics() {
		if !t.Subscribe {
			continue
		}
		for _, o := range next.Policy().Operators(t.Topic) {
			list = append(list, federation.Following{Topic: t.Topic, Operator: o})
		}
	}
	s.session.Follow(list)
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
		if err := s.session.SaySnapshot(t.Topic, s.a.ledger.Own(t.Topic)); err != nil {
			return fmt.Errorf("publishing %s: %w", t.Topic, err)
		}
	}
	s.session.Publish(list)
	return s.a.dispute()
}

// run publishes own claims as they change, and holds the session and the
// embedded broker.
func (s *sharing) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	if s.broker != nil {
		group.Go(func() error { return s.broker.Run(running) })
	}
	group.Go(func() error { return s.session.Run(running) })
	group.Go(func() error { return s.heed(running) })
	group.Go(func() error {
		again := time.NewTicker(publishAgain)
		defer again.Stop()
		for {
			select {
			case <-running.Done():
				return nil
			case <-s.a.ledger.OwnChanged():
				if err := s.say(); err != nil {
					s.note(err)
				}
			case <-again.C:
				// What could not be written is owed: the feeds are made equal to
				// the ledger as a whole.
				if s.wrong() != nil {
					_ = s.publish(s.a.current()) // noted
				}
			}
		}
	})
	return group.Wait()
}

// say hands on what changed of our own claims: this is the only place that
// does, and the ledger gives it nothing of others.
func (s *sharing) say() error {
	checked := s.a.current()
	var errs []error
	for _, c := range s.a.ledger.TakeOwn() {
		if t, ok := checked.Find(c.Topic); !ok || !t.Publish {
			continue
		}
		if err := s.session.Say(c.Topic, c.Claims, c.Removed); err != nil {
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
	}
	return ""
}

// status gives the brokers and what is wrong with them.
func (s *sharing) status() (list []control.BrokerStatus, warnings []control.Warning) {
	list, warnings = []control.BrokerStatus{}, []control.Warning{}
	if len(s.session.Published()) > 0 {
		warnings = standing(s.identity).warn(s.a.now())
	}
	warnings = append(warnings, warnFeeds(s.session.Feeds(), s.a.now())...)
	up := 0
	for _, b := range s.session.Brokers() {
		list = append(list, control.BrokerStatus{URL: b.URL, Connected: b.Connected, Since: b.Since, Error: b.Error, Advice: b.Advice, Refused: b.Refused, Lost: b.Lost})
		if b.Refused > 0 {
			warnings = append(warnings, control.Warning{
				Code: "broker-refuses", Text: fmt.Sprintf("%s refuses %d of this node's subscriptions, so that what peers say may be missing; they are asked for again", b.URL, b.Refused),
				Fix: fmt.Sprintf("does the broker serve the network %q (network in agent.toml)? else its access rules; docs/broker.md says what agents need", s.network),
			})
		}
		if b.Lost > 0 {
			warnings = append(warnings, control.Warning{
				Code: "broker-loses", Text: fmt.Sprintf("%s acknowledged %d messages of this node and does not keep them, so that late joiners lack what it bans; they are sent again", b.URL, b.Lost),
				Fix: "the broker's log and quotas, and whether it admits this operator; a second broker in agent.toml makes up for it",
			})
		}
		if b.Connected {
			up++
		}
	}
	if err := s.wrong(); err != nil {
		warnings = append(warnings, control.Warning{Code: "publish", Text: "this node's own bans are in force here but not published: " + err.Error(), Fix: "df -h; it is tried again every few seconds"})
	}
	if up == 0 && len(list) > 0 {
		var urls []string
		fix := ""
		for _, b := range list {
			urls = append(urls, b.URL)
			fix = cmp.Or(fix, b.Advice)
		}
		warnings = append(warnings, control.Warning{
			Code: "no-broker", Text: "no broker answers, so nothing new is shared or heard; bans that are in force stay: " + strings.Join(urls, ", "),
			Fix: cmp.Or(fix, "the broker's log, and the network between"),
		})
	}
	return list, warnings
}
