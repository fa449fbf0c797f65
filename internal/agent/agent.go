// Package agent puts a node together: detection, ledger, policy, firewall,
// federation, the embedded broker and the control socket. It declares how they
// meet and in which order they start and stop, and does none of their work.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/compat/recent"
	"banmesh/internal/compat/usage"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/export"
	"banmesh/internal/firewall"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/neverban"
	"banmesh/internal/notify"
	"banmesh/internal/page"
	"banmesh/internal/procnet"
	"banmesh/internal/settings"
	"banmesh/internal/store"
	"banmesh/internal/wholefile"
)

// Options are the inputs of [Run].
type Options struct {
	Version   string
	ConfigDir string
	StateDir  string
	Socket    string // control socket
	Log       *slog.Logger
	Out       io.Writer        // for the words to a person at start and stop
	Now       func() time.Time // nil means [time.Now]
	// Reload makes the node read its configuration again with each value.
	Reload <-chan os.Signal
	// Machine is that of [keys.Machine]; "" ties the keys to none.
	Machine string
	// Editions lists newer editions of installed topic definitions, for the page's
	// judgement; may be nil.
	Editions func(context.Context) []doctor.Edition

	testing struct {
		network  func() (neverban.Network, error) // nil: the kernel's
		firewall firewall.Firewall                // nil: the one that the configuration names
		sockets  func() ([]procnet.Socket, error) // nil: the kernel's
		opened   func(*agent)
		look     time.Duration // how often messages look at warnings; 0: the usual
	}
}

// An agent is a running node. Its parts know the functions that they are
// given, and none of them the agent.
type agent struct {
	o       Options
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	store      *store.Store
	ledger     *ledger.Ledger
	table      *export.Table
	enforcer   *enforcer
	honeyports *honeyports
	detection  *detection
	sharing    *sharing
	guard      *guard
	guests     *guestbook
	gate       *gateList
	owners     *portOwners
	recent     *recent.Log // that bouncers and CrowdSec are told from
	bouncers   *bouncers
	shared     *usage.Attribution // of traffic that others report
	fail2ban   *fail2banSide
	crowdsec   *crowdsec
	messages   *notify.Notifier
	lists      *publicLists
	vallumds   []*vallumdSide
	chronicle  *chronicle
	latency    *latency
	page       *page.Server // nil where there is none
	checkup    *checkup

	api    *api.Server
	onStop onStop

	mu       sync.Mutex
	settings *settings.Settings
	refused  error      // why the newest configuration is not in force
	reloads  sync.Mutex // one at a time
}

// HistoryDirectory holds past claims of peers and offences here, below the
// state directory, for `agent policy test`.
const HistoryDirectory = "history"

// files below the state directory.
const (
	storeFile = "agent.db"
	// toldFile has the ends of bans that bouncers and CrowdSec were told.
	toldFile = "told-ends"
	// EventsDirectory holds the node's history, which `agent history` reads.
	EventsDirectory = "events"
	detectFile      = "detect.json"
)

// stopWithin is how long an orderly stop may take before it is cut short.
const stopWithin = 10 * time.Second

// Run starts a node and returns when ctx has ended and everything is stopped,
// or when a part cannot go on. Bans stay in the kernel.
func Run(ctx context.Context, o Options) (err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	sockets := control.OpenSockets()
	defer func() { sockets.Close(err != nil && ctx.Err() == nil) }()
	checked, refused, err := settingsAtStart(o.ConfigDir, o.StateDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	// Files that root leaves in the service's state directory have to be readable by the service.
	defer func() { err = errors.Join(err, wholefile.GiveTree(o.StateDir)) }()
	a := &agent{o: o, log: o.Log, now: o.Now, started: o.Now(), settings: checked, refused: refused}
	defer func() { err = errors.Join(err, a.onStop.run()) }()
	tell(a.log, checked)
	if err := errors.Join(a.open(ctx), wholefile.GiveTree(o.StateDir)); err != nil {
		return err
	}
	if o.testing.opened != nil {
		o.testing.opened(a)
	}
	handler, err := a.api.Local()
	if err != nil {
		return err
	}
	listener, err := sockets.Listen("control", o.Socket, control.ControlMode)
	if err != nil {
		return err
	}
	queries, query, err := a.openQuery(sockets)
	if err != nil {
		return errors.Join(err, listener.Close())
	}

	// Commands end first: parts that still run carry out those under way.
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, running := errgroup.WithContext(parts)
	serving, end := context.WithCancel(running)
	defer context.AfterFunc(ctx, end)()
	group.Go(func() error {
		defer stop()
		return control.Serve(serving, listener, handler, a.log)
	})
	group.Go(func() error { return control.Serve(running, queries, query, a.log, withUser) })
	a.chronicle.Add(history.Event{Kind: history.Start, By: "this node", Count: a.ledger.Stats().Banned, Why: fmt.Sprintf("%s began, with %d bans in force", cmp.Or(a.o.Version, "an unknown version"), a.ledger.Stats().Banned)})
	a.tellRefused(ctx, refused)
	a.start(running, group, handler)
	a.banner(o.Out)
	a.notifySystemd(daemon.SdNotifyReady)
	<-serving.Done()
	a.notifySystemd(daemon.SdNotifyStopping)
	if ctx.Err() != nil {
		fmt.Fprintln(o.Out, "stopping ...")
	}
	err = group.Wait()
	if err == nil && ctx.Err() != nil {
		a.farewell(o.Out)
	}
	return err
}

// start runs the parts until ctx ends.
func (a *agent) start(ctx context.Context, group *errgroup.Group, handler http.Handler) {
	local := control.NewHandlerClient(handler)
	a.checkup.client = local
	group.Go(func() error { return a.chronicle.run(ctx) })
	group.Go(func() error { return a.enforcer.run(ctx) })
	group.Go(func() error { return a.ledger.Own.Write(ctx) })
	group.Go(func() error { return a.guard.run(ctx) })
	group.Go(func() error { return a.guests.run(ctx) })
	group.Go(func() error { return a.sharing.run(ctx) })
	group.Go(func() error { return a.detection.run(ctx) })
	group.Go(func() error { return a.detection.sightings.run(ctx) })
	group.Go(func() error { return a.gate.run(ctx) })
	group.Go(func() error { return a.owners.run(ctx) })
	group.Go(func() error { return a.honeyports.run(ctx) })
	if c := a.current().Config(); c.LAPI.Listen+c.CrowdSec.Listen != "" {
		group.Go(func() error { return a.recent.Run(ctx) })
	}
	group.Go(func() error { return a.bouncers.run(ctx) })
	group.Go(func() error { return a.crowdsec.run(ctx) })
	group.Go(func() error { return a.messages.Run(ctx) })
	group.Go(func() error { return a.lists.run(ctx) })
	for _, v := range a.vallumds {
		group.Go(func() error { return v.run(ctx) })
	}
	group.Go(func() error {
		f := &fail2banLog{settings: a.current, own: a.ledger.Own, state: filepath.Join(a.o.StateDir, fail2banPosition), now: a.now, log: a.fail2ban.log}
		return f.run(ctx)
	})
	group.Go(func() error { return a.fail2ban.run(ctx, a.api.Jails()) })
	group.Go(func() error { return a.runPage(ctx, local) })
	group.Go(func() error { return a.watchdog(ctx) })
	group.Go(func() error { return a.reloadWhenAsked(ctx) })
	group.Go(func() error { return a.serveOthers(ctx) })
	group.Go(func() error { return releaseMemory(ctx) })
}

// open makes the parts, each from those before it. Each close stands right
// behind its opening, so that a later failure closes all of them.
func (a *agent) open(ctx context.Context) (err error) {
	if a.store, err = store.Open(filepath.Join(a.o.StateDir, storeFile)); err != nil {
		return err
	}
	a.onStop.add(a.store.Close)
	a.guard = newGuard(ctx, guardOptions{
		settings: a.current, network: a.o.testing.network, now: a.now, log: a.log,
		changed: func(ctx context.Context) error {
			a.ledger.SetNeverBan(a.guard.protection(), a.guard.peersProtection())
			return a.enforcer.configure(ctx)
		},
		shared: func() { a.ledger.SetCaution(a.guard.caution()) },
	})
	a.guests, err = openGuests(guestOptions{
		settings: a.current, stay: a.settings.GuestStay(), changed: func(t ban.Target) { a.ledger.Reconsider(t) },
		connected: func(ctx context.Context, q detect.Question) detect.Proof { return a.enforcer.corroborated(ctx, q) },
		sent: func(ctx context.Context, topic ban.Topic, x netip.Addr) firewall.Trace {
			return a.enforcer.sent(ctx, topic, x)
		},
		suspend: func() ([]ban.Operator, error) { return a.ledger.Peers.Suspend() },
		state:   a.o.StateDir, now: a.now, log: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop.add(a.guests.close)
	a.latency = newLatency(a.now)
	a.chronicle, err = openChronicle(filepath.Join(a.o.StateDir, EventsDirectory), chronicleOptions{
		standing: func(topic ban.Topic, t ban.Target) (ledger.Standing, bool) { return a.ledger.Standing(topic, t) },
		name:     func(o ban.Operator) string { return a.current().NameOf(o) },
		now:      a.now, log: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop.add(a.chronicle.close)
	past, err := ledger.OpenHistory(filepath.Join(a.o.StateDir, HistoryDirectory))
	if err != nil {
		return err
	}
	a.ledger, err = ledger.Open(ledger.Options{
		History: past, Noted: a.chronicle.noted, Store: a.store, Policy: a.settings.Policy(), NeverBan: a.guard.protection(), NeverPeers: a.guard.peersProtection(), Caution: a.guard.caution(), Guests: a.guests.protection(), Now: a.now, Log: a.log,
		Loading: true,
	})
	if err != nil {
		return err
	}
	a.onStop.add(a.ledger.Close)
	a.table = export.NewTable(a.now)
	a.sharing, err = newSharing(ctx, sharingOptions{
		settings: a.current, news: a.retrust, heard: a.latency.heard, ledger: a.ledger, store: a.store, state: a.o.StateDir, machine: a.o.Machine, now: a.now, log: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop.add(a.sharing.close)
	if err := a.restore(ctx); err != nil {
		return err
	}
	return a.openRest(ctx)
}

// restore brings the claims of others back from their stored signed messages,
// before any network, so that the kernel is told the whole wanted state once.
func (a *agent) restore(ctx context.Context) error {
	next, err := a.sharing.takeTrust(a.current())
	if err != nil {
		return err
	}
	a.setCurrent(next)
	a.ledger.SetPolicy(next.Policy().As(a.sharing.Operator()))
	if err := a.sharing.restore(ctx); err != nil {
		return err
	}
	a.openVallumds()
	a.lists = newPublicLists(publicListOptions{
		settings: a.current, apply: a.ledger.Peers.Apply, never: a.guard.refusesPeers, note: a.chronicle.Add, state: a.o.StateDir, now: a.now, log: a.log,
	})
	if err := a.lists.restore(ctx); err != nil {
		return err
	}
	// A full disk must not keep the bans out of the kernel: run tries again.
	_ = a.sharing.publish(next) // noted
	a.ledger.Loaded()
	return nil
}

// openRest makes the parts that need a ledger with everybody's claims.
func (a *agent) openRest(ctx context.Context) (err error) {
	a.honeyports = newHoneyports(a.log)
	a.onStop.add(a.honeyports.close)
	a.enforcer, err = newEnforcer(ctx, enforcerOptions{
		trap:     a.honeyports.watch,
		noted:    a.chronicle.enforced,
		began:    a.chronicle.startedWith,
		inKernel: a.latency.inKernel,
		settings: a.current, ledger: a.ledger, table: a.table, never: a.guard.kernel, works: a.guests.works, firewall: a.o.testing.firewall, sockets: a.o.testing.sockets,
		state: a.o.StateDir, now: a.now, log: a.log,
	})
	if err != nil {
		return err
	}
	a.onStop.add(a.enforcer.close)
	held := &proxies{settings: a.current, inside: a.guard.inside, now: a.now}
	late := &afterBan{
		since: a.enforcer.stops, packets: a.enforcer.met, now: a.now, log: a.log,
		reason: func(_ context.Context, topic ban.Topic, target ban.Target, unmet bool) biteReason {
			return a.enforcer.unbitten(topic, target, unmet, a.guard.inside)
		},
		counts: map[heldKey]lateOffences{}, topics: map[ban.Topic]lateTopic{},
	}
	shields := newShielded(a.current, a.guard.shield, a.now, a.chronicle.Add)
	a.owners = &portOwners{
		settings: a.current, now: a.now, started: a.started, log: a.log,
		restart: func(ctx context.Context) error { return a.detection.restart(ctx) }, status: func() detect.Status { return a.detection.Status() },
	}
	a.detection, err = newDetection(detectionOptions{
		owners:  a.owners.jails,
		hold:    held.hold,
		decided: func(v detect.Decision) { a.latency.decided(v); a.chronicle.decided(v) },
		refused: func(v detect.Decision, why string) { a.latency.refused(v); a.chronicle.refused(v, why) },
		noticed: func(ctx context.Context, n detect.Notice) {
			shields.notice(n)
			late.notice(ctx, n)
		},
		settings: a.current, ledger: a.ledger, ignored: a.guard.ignored, addresses: a.guard.names.last, corroborated: a.enforcer.corroborated,
		succeeded: a.guests.succeeded, guest: a.guests.holds,
		state: a.o.StateDir, now: a.now, log: a.log,
	})
	if err != nil {
		return err
	}
	a.honeyports.report = a.detection.Report
	a.gate = newGateList(gateOptions{
		settings: a.current, table: a.table, config: a.o.ConfigDir, lists: a.sharing.Lists, explain: a.ledger.Explain,
		state: a.o.StateDir, now: a.now, log: a.log.With(slog.String("part", "gate")),
	})
	a.shared = sharedTraffic(a.table, a.enforcer.mainOperator)
	a.recent = recent.Open(filepath.Join(a.o.StateDir, toldFile), a.table, a.now, a.log.With(slog.String("part", "lapi")))
	if a.bouncers, err = newBouncers(a.current, a.table, a.enforcer.mainOperator, a.shared, a.recent, a.o.StateDir, a.now, a.log); err != nil {
		return err
	}
	a.fail2ban = newFail2banSide(a.current, a.table, a.heldBefore, a.now, a.log)
	if a.crowdsec, err = a.newCrowdSec(); err != nil {
		return err
	}
	if err := a.connectVallumds(); err != nil {
		return err
	}
	references, err := openReferences(a.o.StateDir)
	if err != nil {
		return err
	}
	a.checkup = &checkup{o: a.o, current: a.current, now: a.now}
	a.page = a.newPage()
	a.messages = a.openMessages()
	options := api.Options{
		Messages:   a.messages,
		References: references,
		Version:    a.o.Version, Started: a.started, Now: a.now, Log: a.log, Ledger: a.ledger, Table: a.table,
		Settings: a.current, Reload: a.reloadAs, Effect: a.effectOfRules, Detection: a.detection, Firewall: a.enforcer, Sharing: a.sharing,
		NeverBan: a.guard.everything, Gate: a.gate.status, Bouncers: a.bouncers, Shared: a.shared, Fail2ban: a.fail2ban, CrowdSec: a.crowdsec, Lists: a.lists, Vallumds: a.vallumdStatus, Guests: a.guests.list, Guest: a.guests.why, Held: held.about, Shielded: shields.about, AfterBan: late.about, RemoveGuest: a.guests.remove, Chronicle: a.chronicle,
		LineLatency: a.latency.line, ClaimLatency: a.latency.claim,
		Warnings: func(ctx context.Context) []control.Warning {
			return slices.Concat(a.warnRefused(), a.warnBehind(), a.guard.warnings(), held.warnings(), shields.warnings(), late.warnings(ctx), a.gate.warnings(ctx), a.owners.warnings(), a.fail2ban.warnings(), a.lists.warnings(), a.warnVallumds(), a.chronicle.warnings())
		},
	}
	if a.page != nil { // a nil pointer in the interface would be a page
		options.Page = a.page
	}
	a.api = api.New(options)
	return nil
}

// serveOthers serves checks and lists over TCP where that is configured.
func (a *agent) serveOthers(ctx context.Context) error {
	address := a.current().Config().HTTP.Listen
	if address == "" {
		return nil
	}
	h, err := a.api.Public()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serving lists: %w", err)
	}
	a.api.Listening(l.Addr().String())
	return control.Serve(ctx, l, h, a.log)
}

// current gives the settings in force.
func (a *agent) current() *settings.Settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings
}

// setCurrent puts settings in force for whoever asks from now on.
func (a *agent) setCurrent(s *settings.Settings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settings = s
}

// reload reads the configuration again and puts it in force, unless it has a
// fault or ends more than a handful of bans: then everything stays as it is.
func (a *agent) reload(ctx context.Context) error {
	_, err := a.reloadAs(ctx, control.ReloadRequest{})
	return err
}

// takeOver puts settings in force.
func (a *agent) takeOver(ctx context.Context, next *settings.Settings) error {
	a.notifySystemd(daemon.SdNotifyReloading)
	a.chronicle.peersChanged(operatorsOf(a.current()), operatorsOf(next))
	a.setCurrent(next)
	tell(a.log, next)
	// Order matters where a topic is new: its scope before its bans.
	err := errors.Join(
		a.guard.refresh(ctx),
		a.enforcer.configure(ctx),
	)
	a.ledger.SetPolicy(next.Policy().As(a.sharing.Operator()))
	a.bouncers.observe()
	a.messages.Reload()
	err = errors.Join(err, a.lists.changed(ctx))
	err = errors.Join(err, a.sharing.begin(ctx, next))
	a.sharing.follow(next)
	err = errors.Join(err, a.sharing.publish(next), a.detection.restart(ctx))
	a.notifySystemd(daemon.SdNotifyReady)
	a.log.InfoContext(ctx, "configuration taken over", slog.Int("files", len(next.Files())))
	return err
}

// next reads the configuration that a reload would put in force.
func (a *agent) next() (*settings.Settings, error) {
	next, err := settings.Load(a.o.ConfigDir, a.o.StateDir)
	if err != nil {
		return nil, err
	}
	if err := next.CheckFilters(); err != nil {
		return nil, err
	}
	if changed := cmp.Or(a.sharing.needsRestart(next), settings.NeedsRestart(a.current(), next)); changed != "" {
		return nil, &control.RefusedError{Code: control.CodeRestart, Text: changed + " changed, which needs a restart", Hint: "systemctl restart banmesh-agent"}
	}
	return a.sharing.takeTrust(next)
}

// reloadWhenAsked reads the configuration again at each signal. Nobody waits
// for an answer, so it goes to the log and into the status.
func (a *agent) reloadWhenAsked(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.o.Reload:
			if err := a.reload(ctx); err != nil {
				a.log.ErrorContext(ctx, "configuration not taken over", slog.Any("error", err))
			}
		}
	}
}

// tellRefused says at the start that the files hold another configuration than the one in
// force, or keeps a copy of the one that is.
func (a *agent) tellRefused(ctx context.Context, refused error) {
	if refused == nil {
		a.keepLastGood(ctx)
		return
	}
	first, _, _ := strings.Cut(refused.Error(), "\n")
	a.log.ErrorContext(ctx, "configuration refused at the start, the last good one stays in force", slog.Any("error", refused))
	fmt.Fprintf(a.o.Out, "the configuration is refused, and the last good one stays in force: %s\n`agent check` has all faults\n", first)
	a.chronicle.Add(history.Event{Kind: history.Config, By: "the start", Why: "not taken over: " + first})
}

// keepLastGood keeps a copy of the configuration in force. Without it only the next
// faulty start is worse, so a full disk ends nothing.
func (a *agent) keepLastGood(ctx context.Context) {
	if err := keepLastGood(a.o.ConfigDir, a.o.StateDir); err != nil {
		a.log.WarnContext(ctx, "no copy of the configuration kept", slog.Any("error", err))
	}
}

// warnRefused says that the files hold another configuration than the one in
// force.
func (a *agent) warnRefused() []control.Warning {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused == nil {
		return nil
	}
	text, _, _ := strings.Cut(a.refused.Error(), "\n")
	mend := ""
	if r, ok := errors.AsType[*control.RefusedError](a.refused); ok {
		mend = r.Hint
	}
	return []control.Warning{api.Configuration.Warn("the newest configuration is not in force: "+text, mend)}
}

// notifySystemd tells the service manager, if there is one.
func (a *agent) notifySystemd(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		a.log.Debug("service manager not told", slog.Any("error", err))
	}
}

// watchdog tells the service manager that the agent lives, while its ledger
// answers.
func (a *agent) watchdog(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil //nolint:nilerr // a malformed environment means no watchdog
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			a.ledger.Policy() // would hang with a deadlocked ledger
			a.notifySystemd(daemon.SdNotifyWatchdog)
		}
	}
}

// tell logs the warnings, so that nothing is left out silently.
func tell(log *slog.Logger, s *settings.Settings) {
	for _, w := range s.Warnings() {
		log.Warn("configuration not followed in full", slog.String("warning", w))
	}
}
