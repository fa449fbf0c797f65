// Package tools enforces bans by programs: ipset with iptables, and any program
// that an operator names.
package tools

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// wantedBans is shared by the enforcers without a kernel state of their own: the
// wanted bans, one entry a key, and which of them were not carried out yet.
type wantedBans struct {
	forgetful
	log *slog.Logger
	now func() time.Time

	mu       sync.Mutex
	config   firewall.Config
	scopes   map[ban.Topic]firewall.Scope
	ready    bool
	replaced bool
	closed   bool
	wanted   map[firewall.Key]desired.Second
	pending  map[firewall.Key]bool

	lock int    // descriptor of the lock, -1 without
	sw   string // the switch's file, "" for none
	off  bool   // switched off by hand
}

// Options are the surroundings of an enforcer. The zero value will do.
type Options struct {
	// Logger hears of drift and of failures. nil means nobody.
	Logger *slog.Logger
	// Now is the clock. nil means [time.Now].
	Now func() time.Time
	// Switch is a file that switches the enforcer off while it is there; "" is
	// none.
	Switch string
}

// begin takes the constructor's options.
func (p *wantedBans) begin(o Options) {
	p.log, p.now, p.wanted, p.pending = o.Logger, o.Now, make(map[firewall.Key]desired.Second), make(map[firewall.Key]bool)
	p.lock, p.sw = -1, o.Switch
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
}

func (p *wantedBans) usable() error {
	switch {
	case p.closed:
		return firewall.ErrClosed
	case !p.ready:
		return firewall.ErrNotConfigured
	}
	return nil
}

// configure takes a configuration over and makes pending the end of bans that no scope
// knows any more.
func (p *wantedBans) configure(c firewall.Config) error {
	if p.closed {
		return firewall.ErrClosed
	}
	if p.ready && p.config.Table != c.Table {
		return fmt.Errorf("the table cannot change from %s to %s in a running agent", p.config.Table, c.Table)
	}
	if p.lock < 0 {
		var err error
		if p.lock, err = firewall.TakeLock(c.Table); err != nil {
			return err
		}
	}
	if _, err := p.switched(); err != nil {
		return err
	}
	p.config, p.ready, p.scopes = c, true, make(map[ban.Topic]firewall.Scope, len(c.Scopes))
	for _, s := range c.Scopes {
		p.scopes[s.Topic] = s
	}
	for k := range p.wanted {
		if _, ok := p.scopes[k.Topic]; !ok {
			delete(p.wanted, k)
			p.pending[k] = true
		}
	}
	return nil
}

// want changes the wanted bans and makes every difference pending.
func (p *wantedBans) want(add iter.Seq[firewall.Ban], remove []firewall.Key) error {
	now := desired.SecondOf(p.now())
	var refused firewall.Refusals
	for _, k := range remove {
		if _, ok := p.wanted[k]; ok {
			delete(p.wanted, k)
			p.pending[k] = true
		}
	}
	for b := range add {
		_, known := p.scopes[b.Topic]
		until, k := desired.SecondOf(b.Until), b.Key()
		old, present := p.wanted[k]
		switch {
		case !desired.Canonical(b.Prefix):
			refused.Note(b, firewall.ErrPrefix)
		case !known:
			refused.Note(b, firewall.ErrNoScope)
		case until <= now:
		case !present && len(p.wanted) >= p.config.Cap:
			refused.Note(b, firewall.ErrFull)
		case !present || old != until:
			p.wanted[k] = until
			p.pending[k] = true
		}
	}
	return refused.Err(p.config.Cap)
}

// all replaces the wanted bans and makes every difference pending; unwanted keys too.
func (p *wantedBans) all(bans iter.Seq[firewall.Ban]) error {
	old := p.wanted
	p.wanted, p.replaced = make(map[firewall.Key]desired.Second), true
	err := p.want(bans, nil)
	for k, until := range p.wanted {
		if old[k] == until {
			delete(p.pending, k)
		}
	}
	for k := range old {
		if _, ok := p.wanted[k]; !ok {
			p.pending[k] = true
		}
	}
	return err
}

// ended takes out the bans that are over and gives them.
func (p *wantedBans) ended() []firewall.Key {
	now := desired.SecondOf(p.now())
	var out []firewall.Key
	for k, until := range p.wanted {
		if until <= now {
			out = append(out, k)
			delete(p.wanted, k)
		}
	}
	return out
}

// never says whether a ban would hit the never-ban list, for enforcers that
// cannot let it win packet by packet.
func (p *wantedBans) never(b netip.Prefix) bool {
	for _, n := range p.config.Never {
		if n.Overlaps(b) {
			return true
		}
	}
	return false
}

// switched looks for the switch and says whether it was thrown or taken away
// since the last look.
func (p *wantedBans) switched() (changed bool, err error) {
	if p.sw == "" {
		return false, nil
	}
	_, err = os.Lstat(p.sw)
	off := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for the switch: %w", err)
	}
	changed, p.off = off != p.off, off
	switch {
	case changed && off:
		p.log.Warn("enforcement was switched off by hand; `agent firewall resume` switches it on")
	case changed:
		p.log.Warn("enforcement was switched on again by hand")
	}
	return changed, nil
}

// forgetful is the [firewall.Memory] of enforcers that see no packets.
type forgetful struct{}

// Connection implements [firewall.Memory].
func (forgetful) Connection(context.Context, ban.Topic, netip.AddrPort) (firewall.Trace, error) {
	return firewall.Trace{}, firewall.ErrNotRemembered
}

// Address implements [firewall.Memory].
func (forgetful) Address(context.Context, ban.Topic, netip.Addr) (firewall.Trace, error) {
	return firewall.Trace{}, firewall.ErrNotRemembered
}

// Connections implements [firewall.Memory].
func (forgetful) Connections(context.Context, ban.Topic, netip.Addr) ([]firewall.Trace, error) {
	return nil, firewall.ErrNotRemembered
}

// Since implements [firewall.Memory].
func (forgetful) Since(context.Context, ban.Topic) (firewall.Span, error) {
	return firewall.Span{}, firewall.ErrNotRemembered
}

// Forgotten implements [firewall.Memory].
func (forgetful) Forgotten(context.Context, ban.Topic) (uint64, error) {
	return 0, firewall.ErrNotRemembered
}

// Close implements [Firewall].
func (p *wantedBans) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	firewall.Unlock(p.lock)
	p.lock = -1
	return nil
}
