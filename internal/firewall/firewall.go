// Package firewall declares how bans are wanted and enforced: a million of
// them at the cost of one lookup a packet, each with its own end, so that they
// lapse on time even when the agent is dead, and never one that touches an
// address on the never-ban list.
//
// The caller states the wanted bans ([Firewall.Configure], [Firewall.Replace],
// [Firewall.Apply]) and calls [Firewall.Check] every second or two. Whatever
// could not be written stays pending and is written by a later call. Package
// nft does it in nftables, package tools with ipset or by running a program,
// and [Fake] in memory; package enforcers lists them.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A Ban is one entry of the wanted state. Its key is (Prefix, Topic): a later
// Ban of the same key replaces the earlier one.
type Ban struct {
	// Prefix is the target, canonical as [ban.Target] has it: masked, IPv4
	// never mapped into IPv6.
	Prefix netip.Prefix
	// Topic says by which [Scope] it is enforced.
	Topic ban.Topic
	// Until is when it ends. The zero time means never.
	Until time.Time
	// By names those on whose word it rests, "alice,bob": while the topic is
	// only observed, its packets are counted for each of them, too
	// ([ByOperator]). Any other text counts for nobody.
	By string
}

// Key gives the ban's key.
func (b Ban) Key() Key { return Key{Prefix: b.Prefix, Topic: b.Topic} }

// A Key names a [Ban].
type Key struct {
	Prefix netip.Prefix
	Topic  ban.Topic
}

// A Config is everything but the bans.
type Config struct {
	// Table is the nftables table, family inet, and the prefix of other
	// enforcers' names. Empty means [DefaultTable].
	Table string
	// Scopes holds one entry a topic. A ban in another topic is refused.
	Scopes []Scope
	// Never has the prefixes that no ban may block, checked in the kernel before any ban.
	Never []netip.Prefix
	// Cap is how many different prefixes may be banned at a time. 0 means
	// [DefaultCap].
	Cap int
	// Owner says whether the table belongs to this process alone.
	Owner OwnerMode
	// Honeyports are TCP ports of this host at which nobody listens: connections
	// there are led to the local port HoneyportTo, while the enforcer is open. A
	// program that listens at one later has it from then on. They need connection
	// tracking in the kernel.
	Honeyports  []uint16
	HoneyportTo uint16
	// KeepSockets leaves local TCP sockets of newly banned addresses open: they
	// hear nothing more from their peer, and die of their own timeouts.
	KeepSockets bool
}

// Limits and defaults of a [Config].
const (
	DefaultTable = "banmesh"
	// DefaultCap bounds the kernel's memory, about 130 bytes a ban, to 32 MB.
	DefaultCap = 250_000
	// MaxCap is the most that was measured.
	MaxCap = 4_000_000
	// MaxScopes bounds the topics, since every packet of a banned address runs
	// through its topics' rules.
	MaxScopes = 256
	// MaxPorts bounds the ports of a scope; who closes more closes all of them.
	MaxPorts = 1_024
	// MaxHoneyports bounds the ports that are watched.
	MaxHoneyports = 256
	// MaxNever bounds the never-ban list, which is read back and compared.
	MaxNever = 20_000
)

// OwnerMode says whether to make the table the process's own. An owned and
// persistent table (Linux 6.9) survives `nft flush ruleset` and nobody else can
// change it, but an nft that does not know the flags prints a listing of it
// that it then refuses to read, while no agent runs.
type OwnerMode uint8

// The owner modes.
const (
	OwnerAuto   OwnerMode = iota // where the kernel can and the installed nft, if any, understands
	OwnerNever                   // never
	OwnerAlways                  // refuse to start where the kernel cannot
)

// A Firewall keeps bans in force. Its methods may be called from any goroutine.
type Firewall interface {
	// Configure writes tables, chains, scopes and the never-ban list, and keeps
	// the bans. It writes differences only. A table that an earlier
	// process left in the kernel stays in force, as that process left it, until
	// the first Replace.
	Configure(ctx context.Context, c Config) error
	// Replace makes the bans exactly those given: elements that the kernel already has are
	// adopted, the rest is cured. Bans that have ended are skipped.
	Replace(ctx context.Context, bans iter.Seq[Ban]) error
	// Apply adds or extends some bans and removes others. Failures are named in
	// the error and stay pending; the rest is done. It is refused before the first
	// Replace, since it could not tell the bans to keep from the rest.
	Apply(ctx context.Context, add []Ban, remove []Key) error
	// Check looks for changes that somebody else made, cures them, flushes pending
	// bans and lets ended bans go. It costs microseconds when all is well.
	Check(ctx context.Context) (Drift, error)
	// Counters counts the packets that met each topic's bans, observed topics too.
	Counters(ctx context.Context) (map[ban.Topic]Counter, error)
	Memory
	// Close lets go and leaves the bans in force.
	Close() error
}

// ByOperator is a [Firewall] that counts the packets of observed bans for each of
// those on whose word they rest, so that one can see the effect of
// believing somebody.
type ByOperator interface {
	// Operators gives the counters of observed topics by the names in [Ban.By].
	Operators(ctx context.Context) (map[ban.Topic]map[string]Counter, error)
}

// A Counter counts packets since the table was made.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// A Drift is the finding of a [Firewall.Check].
type Drift struct {
	// Changed says that somebody else changed our objects.
	Changed bool
	// What names the changes for people: "the table was gone".
	What []string
	// Cured says that all of it was put right.
	Cured bool
	// Pending is how many bans still wait to be written.
	Pending int
	// Bans is how many prefixes are banned.
	Bans int
	// Off says that enforcement was switched off by hand ([Panic]).
	Off bool
}

var (
	// ErrFull says that [Config.Cap] is reached.
	ErrFull = errors.New("the cap on bans is reached")
	// ErrNoScope says that a ban's topic is not in [Config.Scopes].
	ErrNoScope = errors.New("the topic has no scope")
	// ErrPrefix says that a ban's prefix is not canonical.
	ErrPrefix = errors.New("not a canonical prefix")
	// ErrBusy says that another process enforces with the same table.
	ErrBusy = errors.New("another process holds this table")
	// ErrDenied says that the process lacks CAP_NET_ADMIN.
	ErrDenied = errors.New("not permitted: root or CAP_NET_ADMIN is needed")
	// ErrUnsupported says that the kernel lacks something that is needed.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrNotRemembered says that nothing is remembered of the topic.
	ErrNotRemembered = errors.New("the peers of this topic are not remembered")
	// ErrNotConfigured says that Configure was not called, or failed.
	ErrNotConfigured = errors.New("the firewall is not configured")
	// ErrNoState says that the whole state was not given yet.
	ErrNoState = errors.New("the wanted bans are not known yet; Replace comes before Apply")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("the firewall is closed")
)

// Normal gives the configuration with defaults filled in and everything
// sorted, or all its faults.
func (c Config) Normal() (Config, error) {
	var errs []error
	if c.Table == "" {
		c.Table = DefaultTable
	}
	if err := CheckTable(c.Table); err != nil {
		errs = append(errs, err)
	}
	if c.Cap == 0 {
		c.Cap = DefaultCap
	}
	if c.Cap < 0 || c.Cap > MaxCap {
		errs = append(errs, fmt.Errorf("the cap of %d bans is not within 1 and %d", c.Cap, MaxCap))
	}
	if len(c.Scopes) > MaxScopes {
		errs = append(errs, fmt.Errorf("%d scopes are more than %d", len(c.Scopes), MaxScopes))
	}
	if len(c.Never) > MaxNever {
		errs = append(errs, fmt.Errorf("%d never-ban entries are more than %d", len(c.Never), MaxNever))
	}
	c.Honeyports = slices.Compact(slices.Sorted(slices.Values(c.Honeyports)))
	switch {
	case len(c.Honeyports) > MaxHoneyports:
		errs = append(errs, fmt.Errorf("%d honeyports are more than %d", len(c.Honeyports), MaxHoneyports))
	case len(c.Honeyports) > 0 && (c.Honeyports[0] == 0 || c.HoneyportTo == 0 || slices.Contains(c.Honeyports, c.HoneyportTo)):
		errs = append(errs, errors.New("honeyports and the port that they lead to are different and not 0"))
	}
	c.Scopes = slices.Clone(c.Scopes)
	slices.SortFunc(c.Scopes, func(a, b Scope) int { return strings.Compare(string(a.Topic), string(b.Topic)) })
	for i := range c.Scopes {
		s := &c.Scopes[i]
		if i > 0 && c.Scopes[i-1].Topic == s.Topic {
			errs = append(errs, fmt.Errorf("topic %s has two scopes", s.Topic))
		}
		errs = append(errs, s.normalise())
	}
	c.Never = slices.Clone(c.Never)
	for i, p := range c.Never {
		t, err := ban.TargetOfPrefix(p)
		if err != nil {
			errs = append(errs, fmt.Errorf("never-ban entry: %w", err))
			continue
		}
		c.Never[i], _ = t.Prefix()
	}
	return c, errors.Join(errs...)
}

// CheckTable refuses names that would need quoting in nft, ipset or iptables.
// 16 bytes leave room for a suffix in ipset's 31.
func CheckTable(name string) error {
	const most = 16
	ok := len(name) > 0 && len(name) <= most && name[0] >= 'a' && name[0] <= 'z'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("table %.40q: want 1 to %d of a-z, 0-9, '-' and '_', beginning with a letter", name, most)
	}
	return nil
}
