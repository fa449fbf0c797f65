package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/federation"
	"banmesh/internal/gate"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/wallet"
	"banmesh/internal/wallet/signedlist"
)

const (
	// gatePathFile keeps the secret path of the gate's URL.
	gatePathFile = "gate.path"
	// gateLook is how long a torn list can stay, and how long a changed setting
	// waits.
	gateLook = time.Second
	// gateConfirm is how often an unchanged list is said to hold still.
	gateConfirm = 30 * time.Second
	// gateAsk bounds the question how the gate is.
	gateAsk = 300 * time.Millisecond
)

// gateList keeps the wallet gate's file equal to the denied wallets. The gate is
// a process of its own: it denies by this file while the agent is away.
type gateList struct {
	o    gateOptions
	path string // the secret one, "" until it is needed

	mu      sync.Mutex
	written gate.Trace // of the file as this agent left it
	header  gate.Header
	from    *settings.Settings // that the lists' contacts were read with
	sum     string
	fault   error // why the file is not the newest list
}

// gateOptions are the parts that a [gateList] needs.
type gateOptions struct {
	settings func() *settings.Settings
	table    *export.Table
	lists    func() []federation.PublishedList
	explain  func(ban.Target) ledger.Explanation
	config   string // directory
	state    string
	now      func() time.Time
	log      *slog.Logger
}

func newGateList(o gateOptions) *gateList {
	return &gateList{o: o}
}

// gateFile gives the list's file, and whether it is kept: where [gate] says so
// or its directory is there, which the gate's package makes.
func gateFile(c config.Gate) (file string, kept bool) {
	file = cmp.Or(c.File, gate.DefaultFile)
	if c.Enabled != nil {
		return file, *c.Enabled
	}
	info, err := os.Stat(filepath.Dir(file))
	return file, err == nil && info.IsDir()
}

// run writes the list when a wallet's denial or a setting changes, and again when
// somebody else changed the file.
func (g *gateList) run(ctx context.Context) error {
	serial := g.o.table.Serial() // before the wallets are gathered, so that none is missed
	g.reconcile()
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, gateLook)
		batch, err := g.o.table.Next(wait, serial)
		cancel()
		switch {
		case err == nil:
			serial = batch.Serial
			if !slices.ContainsFunc(batch.Bans, func(e export.Entry) bool { return e.Target.Kind() == ban.KindWallet }) &&
				!slices.ContainsFunc(batch.Lifted, func(k export.Key) bool { return k.Target.Kind() == ban.KindWallet }) {
				continue
			}
			g.forget()
		case errors.Is(err, export.ErrBehind):
			serial = g.o.table.Serial()
			g.forget()
		}
		g.reconcile()
	}
	return nil
}

// forget has the next reconcile write the list, whatever the file looks like.
func (g *gateList) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.written = gate.Trace{}
}

// reconcile makes the file hold the newest list, or be gone.
func (g *gateList) reconcile() {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.o.settings().Config().Gate
	file, kept := gateFile(c)
	err := g.keep(file, kept, c)
	if err != nil && (g.fault == nil || g.fault.Error() != err.Error()) {
		g.o.log.Error("the wallet gate's list cannot be written", slog.String("file", file), slog.Any("error", err))
	}
	g.fault = err
}

func (g *gateList) keep(file string, kept bool, c config.Gate) error {
	if !kept {
		if g.sum = ""; c.Enabled == nil {
			return nil
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the gate's list: %w", err)
		}
		return nil
	}
	if g.path == "" {
		var err error
		if g.path, err = gate.LoadPath(filepath.Join(g.o.state, gatePathFile)); err != nil {
			return err
		}
	}
	h := gate.Header{Path: g.path, DryRun: c.DryRun, Message: c.Message, Chain: c.Chain, ChainAllows: c.ChainFailure == "allow"}
	now, err := gate.Look(file)
	if err != nil {
		return err
	}
	if g.sum != "" && now == g.written && sameHeader(h, g.header) && g.from == g.o.settings() {
		if g.o.now().Sub(now.Modified) < gateConfirm {
			return nil
		}
		at := g.o.now()
		if err := os.Chtimes(file, at, at); err != nil {
			return fmt.Errorf("confirming the gate's list: %w", err)
		}
		g.written, err = gate.Look(file)
		return err
	}
	return g.write(file, h)
}

// sameHeader compares the settings in two headers.
func sameHeader(a, b gate.Header) bool {
	return a.Path == b.Path && a.DryRun == b.DryRun && a.Message == b.Message && a.Chain == b.Chain && a.ChainAllows == b.ChainAllows
}

func (g *gateList) write(file string, h gate.Header) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("making the gate's directory: %w", err)
	}
	from := g.o.settings()
	lists, err := signedlist.ReadFolder(g.o.config)
	if err != nil {
		// A contact less is no reason to deny by an older list.
		g.o.log.Warn("lists of wallets not read in full", slog.Any("error", err))
	}
	said, published := signedlist.NewIndex(lists), g.o.lists()
	var entries []gate.Entry
	for _, e := range g.o.table.Wallets() {
		if e.Topic == wallet.OrchestratorTopic {
			continue // whom gateways do not use is no gateway
		}
		w, _ := e.Target.Wallet()
		entries = append(entries, gate.Entry{Wallet: w, Until: e.Until, Reason: gate.Reason{Topic: string(e.Topic), Class: e.Class.String(), Contact: g.contact(said, published, e, w)}})
	}
	h.Written = g.o.now().UTC()
	b, err := gate.Encode(h, entries)
	if err != nil {
		return err
	}
	if err := gate.WriteFile(file, b); err != nil {
		return err
	}
	l, err := gate.Decode(b)
	if err != nil {
		return err
	}
	g.header, g.sum, g.from = h, l.Sum(), from
	g.written, err = gate.Look(file)
	return err
}

// contact gives where a denied wallet may object: as the list says that names it,
// an imported one, one that an operator publishes whose claim counts, or our own.
func (g *gateList) contact(said *signedlist.Index, published []federation.PublishedList, e export.Entry, w [20]byte) string {
	if c := said.Contact(e.Topic, w); c != "" {
		return c
	}
	for _, l := range published {
		if l.Topic != e.Topic || l.Contact == "" {
			continue
		}
		if _, named := l.Find(w); named && g.counts(e, l.Operator) {
			return l.Contact
		}
	}
	return ""
}

// counts says whether an operator's claim is one of those that deny a wallet: of
// others nothing is told to the denied.
func (g *gateList) counts(e export.Entry, o ban.Operator) bool {
	for _, s := range g.o.explain(e.Target).Standings {
		if s.Topic == e.Topic && slices.ContainsFunc(s.Claims, func(c ledger.Claimed) bool { return c.Feed.Operator == o && c.Counts() }) {
			return true
		}
	}
	return false
}

// status asks the gate how it is; false where none is kept.
func (g *gateList) status(ctx context.Context) (control.GateStatus, bool) {
	c := g.o.settings().Config().Gate
	file, kept := gateFile(c)
	g.mu.Lock()
	path, sum, fault := g.path, g.sum, g.fault
	g.mu.Unlock()
	if !kept || path == "" && fault == nil {
		return control.GateStatus{}, false
	}
	address := cmp.Or(c.Listen, gate.DefaultAddress)
	out := control.GateStatus{URL: gate.URL(address, path), File: file, Wallets: []control.WalletCount{}}
	if fault != nil {
		out.Error = fault.Error()
	}
	s, err := askGate(ctx, out.URL)
	if err != nil {
		out.Error = cmp.Or(out.Error, err.Error())
		return out, true
	}
	out.Running, out.Current = true, s.Sum == sum && sum != ""
	out.PID, out.Started, out.Inherited, out.Fault = s.PID, s.Started, s.Inherited, s.Fault
	out.Listed, out.Written, out.Confirmed, out.DryRun = s.Listed, s.Written, s.Confirmed, s.DryRun
	out.Allowed, out.Refused, out.Unread, out.Stray = s.Allowed, s.Refused, s.Unread, s.Stray
	out.UpstreamRefused, out.UpstreamFailed, out.Forgotten = s.UpstreamRefused, s.UpstreamFailed, s.Forgotten
	for _, w := range s.Counters.Wallets {
		out.Wallets = append(out.Wallets, control.WalletCount(w))
	}
	return out, true
}

// askGate gets the gate's own account of itself.
func askGate(ctx context.Context, url string) (s gate.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, gateAsk)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return s, err
	}
	t := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return s, fmt.Errorf("the gate does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, fmt.Errorf("another program answers at the gate's address: %s", resp.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 4<<20)).Decode(&s); err != nil {
		return s, errors.New("another program answers at the gate's address")
	}
	return s, nil
}

// deniedEnd is how long before the end of own denials the status warns.
const deniedEnd = 3 * 24 * time.Hour

// ending warns of own denials that end soon: nobody looks into a list whose
// entries vanish.
func (g *gateList) ending() []control.Warning {
	soon := map[ban.Topic]int{}
	for _, e := range g.o.table.Wallets() {
		if e.Here && e.Until.Sub(g.o.now()) < deniedEnd {
			soon[e.Topic]++
		}
	}
	var list []control.Warning
	for _, topic := range slices.Sorted(maps.Keys(soon)) {
		list = append(list, api.DenialsEnd.Warn(fmt.Sprintf("%s: %d of your denied wallets are admitted again within three days", topic, soon[topic]), "agent denylist renew --all --topic "+string(topic)))
	}
	return list
}

// warnings are about own denials, and about a gate that [gate] asks for.
func (g *gateList) warnings(ctx context.Context) []control.Warning {
	return append(g.ending(), g.health(ctx)...)
}

func (g *gateList) health(ctx context.Context) []control.Warning {
	if on := g.o.settings().Config().Gate.Enabled; on == nil || !*on {
		return nil
	}
	s, kept := g.status(ctx)
	switch {
	case !kept:
		return nil
	case !s.Running:
		return []control.Warning{api.GateDown.Warn("the wallet gate: "+s.Error, "")}
	case s.Error != "":
		return []control.Warning{api.GateList.Warn("the wallet gate's list: "+s.Error, "")}
	case !s.Current && g.o.now().Sub(s.Started) > 2*gateLook:
		return []control.Warning{api.GateList.Warn("the wallet gate answers by another list than the newest"+because(s.Fault), "")}
	}
	return nil
}

func because(fault string) string {
	if fault == "" {
		return ""
	}
	return ": " + fault
}
