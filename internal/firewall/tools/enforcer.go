package tools

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// An IPSetEnforcer is the [firewall.Enforcer] "ipset".
type IPSetEnforcer struct{ setup firewall.Setup }

// A HookEnforcer is the [firewall.Enforcer] "hook".
type HookEnforcer struct{ setup firewall.Setup }

// NewIPSetEnforcer gives the enforcer of a setup.
func NewIPSetEnforcer(s firewall.Setup) IPSetEnforcer {
	s.Table = cmp.Or(s.Table, firewall.DefaultTable)
	return IPSetEnforcer{s}
}

// NewHookEnforcer gives the enforcer of a setup.
func NewHookEnforcer(s firewall.Setup) HookEnforcer { return HookEnforcer{s} }

var (
	_ firewall.Enforcer = IPSetEnforcer{}
	_ firewall.Enforcer = HookEnforcer{}
)

// Name implements [firewall.Enforcer].
func (IPSetEnforcer) Name() string { return "ipset" }

// Check implements [firewall.Enforcer].
func (IPSetEnforcer) Check() error { return nil }

// Tracks implements [firewall.Enforcer].
func (IPSetEnforcer) Tracks() bool { return false }

// Stays implements [firewall.Enforcer].
func (e IPSetEnforcer) Stays() string {
	return "The bans " + e.Where() + " stay in force until each of them ends; `agent firewall flush` removes them all now."
}

// Where implements [firewall.Enforcer].
func (e IPSetEnforcer) Where() string {
	return "in ipsets " + e.setup.Table + "-*, asked by iptables' raw table"
}

// Probe implements [firewall.Enforcer].
func (e IPSetEnforcer) Probe(ctx context.Context) (firewall.Capability, error) {
	return ProbeIPSet(ctx, e.setup.IPTablesLegacy), nil
}

// Open implements [firewall.Enforcer].
func (e IPSetEnforcer) Open(o firewall.Options) (firewall.Firewall, error) {
	return NewIPSet(Options{Logger: o.Logger, Now: o.Now, Switch: e.setup.Switch}, e.setup.IPTablesLegacy), nil
}

// Inspect implements [firewall.Enforcer].
func (e IPSetEnforcer) Inspect(ctx context.Context, topics []ban.Topic) (firewall.Summary, error) {
	s, err := InspectIPSet(ctx, e.setup.Table, e.setup.IPTablesLegacy, topics)
	s.Off = thrown(e.setup.Switch)
	return s, err
}

// Holds implements [firewall.Enforcer].
func (IPSetEnforcer) Holds(context.Context, netip.Prefix) (firewall.Held, error) {
	return firewall.Held{}, firewall.ErrUnseen
}

// Neighbours implements [firewall.Enforcer]: ipset sees none.
func (IPSetEnforcer) Neighbours() ([]firewall.Neighbour, error) { return nil, nil }

// Remove implements [firewall.Enforcer].
func (e IPSetEnforcer) Remove(ctx context.Context) error {
	return RemoveIPSet(ctx, e.setup.Table, e.setup.IPTablesLegacy)
}

// Panic implements [firewall.Enforcer].
func (e IPSetEnforcer) Panic(ctx context.Context) (when string, err error) {
	if err := throw(e.setup.Switch); err != nil {
		return "", err
	}
	return "no ban is enforced any more", PanicIPSet(ctx, e.setup.Table, e.setup.IPTablesLegacy)
}

// Resume implements [firewall.Enforcer].
func (e IPSetEnforcer) Resume(context.Context) error { return takeBack(e.setup.Switch) }

// Name implements [firewall.Enforcer].
func (HookEnforcer) Name() string { return "hook" }

// Check implements [firewall.Enforcer].
func (e HookEnforcer) Check() error {
	_, err := NewHook(Options{}, e.setup.Hook)
	return err
}

// Tracks implements [firewall.Enforcer].
func (HookEnforcer) Tracks() bool { return false }

// Stays implements [firewall.Enforcer].
func (HookEnforcer) Stays() string {
	return "The hook's program ends each ban when the seconds are over that it was told."
}

// Where implements [firewall.Enforcer].
func (e HookEnforcer) Where() string { return "by the hook " + e.program() }

// Probe implements [firewall.Enforcer]. It runs nothing.
func (e HookEnforcer) Probe(context.Context) (firewall.Capability, error) {
	err := e.Check()
	return firewall.Capability{Enforce: err == nil}, err
}

// Open implements [firewall.Enforcer].
func (e HookEnforcer) Open(o firewall.Options) (firewall.Firewall, error) {
	return NewHook(Options{Logger: o.Logger, Now: o.Now, Switch: e.setup.Switch}, e.setup.Hook)
}

// Inspect implements [firewall.Enforcer].
func (e HookEnforcer) Inspect(context.Context, []ban.Topic) (firewall.Summary, error) {
	return firewall.Summary{}, fmt.Errorf("hook %s: %w", e.program(), firewall.ErrUnseen)
}

// Holds implements [firewall.Enforcer].
func (e HookEnforcer) Holds(context.Context, netip.Prefix) (firewall.Held, error) {
	return firewall.Held{}, firewall.ErrUnseen
}

// Neighbours implements [firewall.Enforcer].
func (HookEnforcer) Neighbours() ([]firewall.Neighbour, error) { return nil, nil }

// Remove implements [firewall.Enforcer].
func (e HookEnforcer) Remove(context.Context) error {
	return fmt.Errorf("hook %s: %w", e.program(), firewall.ErrUnseen)
}

// Panic implements [firewall.Enforcer].
func (e HookEnforcer) Panic(context.Context) (when string, err error) {
	return "a running agent tells the hook within seconds to lift every ban; without one, each ends on its time", throw(e.setup.Switch)
}

// Resume implements [firewall.Enforcer].
func (e HookEnforcer) Resume(context.Context) error { return takeBack(e.setup.Switch) }

func (e HookEnforcer) program() string {
	if len(e.setup.Hook) == 0 {
		return "(none)"
	}
	return e.setup.Hook[0]
}

// thrown says whether the switch file is there.
func thrown(file string) bool {
	_, err := os.Lstat(file)
	return file != "" && err == nil
}

func throw(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func takeBack(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
