package doctor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/enforcers"
	"banmesh/internal/settings"
)

// Facts are everything that the checks judge: facts, gathered before, so
// that the checks are plain functions of them.
type Facts struct {
	Now      time.Time
	Settings error          // the configuration's faults
	Withheld []Finding      // the parts of it that the service may not read
	Running  error          // why nobody answers
	Status   control.Status // of the running agent
	Peers    []control.Peer
	Never    []control.NeverBan
	Exempt   []control.Exemption
	Feeds    []control.Feed
	Table    TableState
	Boot     []firewall.Restorer // who loads saved rules at boot
	Moved    []MovedJail         // imported jails that are other ones now
	Editions []Edition           // definitions of which an earlier edition is installed
	Clock    ClockState
}

// TableState is the kernel's answer about our table; Known is false where this
// user may not ask, or something else than nftables enforces.
type TableState struct {
	Known, Present, Off bool
	Ahead               []firewall.Neighbour // chains of others that see packets before ours
}

// ClockState is the kernel's answer about its clock.
type ClockState struct {
	Known, Synchronised bool
}

// An Edition is a topic definition that is offered in a newer edition than the
// installed one.
type Edition struct {
	Topic ban.Topic
	By    string // an operator's name here; "shipped"
}

// Options say where the facts of [Examine] are.
type Options struct {
	Config string // the configuration directory
	State  string // the state directory
	Client *control.Client
	// Enforcer gives the configured enforcer with its setup.
	Enforcer func() (firewall.Enforcer, firewall.Setup)
	// Editions lists newer editions of installed definitions; may be nil.
	Editions func(context.Context) []Edition
}

// Examine gathers the facts. Facts that cannot be had are left empty.
func Examine(ctx context.Context, o Options) Facts {
	e := Facts{Now: time.Now(), Clock: kernelClock()}
	var set *settings.Settings
	if set, e.Settings = settings.Load(o.Config, o.State); e.Settings == nil {
		e.Withheld = Withheld(set.Reads())
	}
	e.Moved = movedJails(o.Config)
	if o.Editions != nil {
		e.Editions = o.Editions(ctx)
	}
	if e.Running = o.Client.Get(ctx, "/v1/status", nil, &e.Status); e.Running != nil {
		return e
	}
	for path, into := range map[string]any{"/v1/peers": &e.Peers, "/v1/never-ban": &e.Never, "/v1/allow": &e.Exempt, "/v1/feeds": &e.Feeds} {
		if err := o.Client.Get(ctx, path, nil, into); err != nil {
			e.Running = errors.Join(e.Running, err)
		}
	}
	chosen, setup := o.Enforcer()
	if chosen.Name() == e.Status.Enforcement {
		e.Table = kernelTable(ctx, chosen)
	}
	e.Boot = enforcers.Restorers(chosen, setup)
	return e
}

func kernelTable(ctx context.Context, chosen firewall.Enforcer) (t TableState) {
	s, err := chosen.Inspect(ctx, nil)
	if err != nil {
		return t
	}
	chains, err := chosen.Neighbours()
	if err != nil {
		return t
	}
	t = TableState{Known: true, Present: s.Present, Off: s.Off}
	ours := slices.IndexFunc(chains, func(n firewall.Neighbour) bool { return n.Ours && n.Hook == "prerouting" })
	for i, n := range chains {
		if ours >= 0 && i < ours && n.Hook == "prerouting" {
			t.Ahead = append(t.Ahead, n)
		}
	}
	return t
}

// LoggedInFrom reads the client's address out of sshd's SSH_CONNECTION.
func LoggedInFrom(s string) netip.Addr {
	first, _, _ := strings.Cut(s, " ")
	a, err := netip.ParseAddr(first)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

func kernelClock() ClockState {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return ClockState{}
	}
	return ClockState{Known: true, Synchronised: t.Status&unix.STA_UNSYNC == 0}
}
