package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/firewall"
	"banmesh/internal/guests"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// guestFile, in the state directory, keeps the guests. It never leaves the
// node.
const guestFile = "guests"

// guestbook keeps who lately logged in or worked here.
type guestbook struct {
	o   guestOptions
	set *guests.Set // nil: the configuration wants none
}

// guestOptions are the inputs of a guestbook. connection and sent may be
// set later than it is opened.
type guestOptions struct {
	settings func() *settings.Settings
	stay     time.Duration // 0: nobody is a guest
	// changed is told about an address that became a guest or is none any more.
	changed func(ban.Target)
	// connected says whether the kernel saw the connection of a success, sent
	// how much an address sent in a topic lately.
	connected func(context.Context, detect.Question) detect.Proof
	sent      func(context.Context, ban.Topic, netip.Addr) firewall.Trace
	// suspend quarantines peers that claim guests too often.
	suspend func() ([]ban.Operator, error)
	state   string // the state directory
	now     func() time.Time
	log     *slog.Logger
}

func openGuests(o guestOptions) (*guestbook, error) {
	g := &guestbook{o: o}
	if o.stay == 0 {
		return g, nil
	}
	var err error
	g.set, err = guests.Open(guests.Options{Path: filepath.Join(o.state, guestFile), Stay: o.stay, Now: o.now, Changed: o.changed})
	if err != nil {
		return nil, fmt.Errorf("%w; moving the file away begins anew", err)
	}
	return g, nil
}

// protection gives the guests as policy asks for them, nil where there are
// none.
func (g *guestbook) protection() policy.Protection {
	if g.set == nil {
		return nil
	}
	return g.set
}

// succeeded takes a login over. It is judged as an offence is: where the kernel
// remembers connections and had none, the line is forged.
func (g *guestbook) succeeded(ctx context.Context, s detect.Success) {
	if g.set == nil || g.o.connected(ctx, detect.Question{Topic: s.Topic, From: netip.AddrPortFrom(s.Addr, s.Port), At: s.At}) == detect.ProofDenied {
		return
	}
	g.add(ctx, s.Topic, s.Addr, s.At, false)
}

func (g *guestbook) add(ctx context.Context, topic ban.Topic, a netip.Addr, at time.Time, worked bool) {
	if err := g.set.Add(topic, a, at, worked); err != nil {
		g.o.log.ErrorContext(ctx, "guest not kept", slog.Any("error", err))
	}
}

// holds says whether a target is a guest. In a topic in which bytes make one
// the kernel is asked for those too.
func (g *guestbook) holds(topic ban.Topic, t ban.Target) bool {
	if g.set == nil {
		return false
	}
	if _, ok := g.set.Find(t); ok {
		return true
	}
	return g.works(context.Background(), topic, t)
}

// works says whether an address sent enough in a topic to be a guest, and makes
// it one.
func (g *guestbook) works(ctx context.Context, topic ban.Topic, t ban.Target) bool {
	if g.set == nil {
		return false
	}
	x, ok := g.o.settings().Find(topic)
	p, single := t.Prefix()
	if !ok || x.Definition.Detect == nil || x.Definition.Detect.GuestBytes <= 0 || !single || !p.IsSingleIP() {
		return false
	}
	trace := g.o.sent(ctx, topic, p.Addr())
	if trace.Bytes < uint64(x.Definition.Detect.GuestBytes) {
		return false
	}
	g.add(ctx, topic, p.Addr(), trace.Last, true)
	return true
}

// expireEvery is how often guests whose time is over are let go, and peers are
// measured by the guests. That looks at every claim, so it is done less often
// where it takes more than one part in measureShare of the time.
const (
	expireEvery  = time.Minute
	measureShare = 1000
)

// measure quarantines peers whose claims are of guests far more often than those
// of the core.
func (g *guestbook) measure(ctx context.Context) {
	list, err := g.o.suspend()
	for _, o := range list {
		g.o.log.WarnContext(ctx, "peer quarantined, it claims guests too often", slog.String("operator", g.o.settings().NameOf(o)))
	}
	if err != nil {
		g.o.log.ErrorContext(ctx, "quarantine not written", slog.Any("error", err))
	}
}

// run ends guests until ctx ends.
func (g *guestbook) run(ctx context.Context) error {
	if g.set == nil {
		return nil
	}
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for next := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := g.set.Expire(); err != nil {
				g.o.log.ErrorContext(ctx, "guests not written", slog.Any("error", err))
			}
			if now := time.Now(); !now.Before(next) {
				g.measure(ctx)
				next = now.Add(measureShare * time.Since(now))
			}
		}
	}
}

func (g *guestbook) close() error {
	if g.set == nil {
		return nil
	}
	return g.set.Close()
}

// list gives the guests, by address.
func (g *guestbook) list() []guests.Guest {
	if g.set == nil {
		return nil
	}
	return g.set.All()
}

// why says why a target is a guest, or has one.
func (g *guestbook) why(t ban.Target) (string, bool) {
	if g.set == nil {
		return "", false
	}
	return g.set.Protects(t)
}

// remove ends guests, and says how many.
func (g *guestbook) remove(t ban.Target) (int, error) {
	if g.set == nil {
		return 0, nil
	}
	return g.set.Remove(t)
}
