package agent

import (
	"context"
	"net"
	"net/netip"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// TryPolicy replays the events that feed gives against the rules of a
// configuration directory and the switches of a state directory; other are rules of one topic in place of those, or nil. An error in warn says that the never-ban list of the trial may
// lack entries.
func TryPolicy(ctx context.Context, config, state string, other *control.RulesRequest, feed func(func(ledger.Event) error) error) (t ledger.Trial, warn, err error) {
	set, err := settings.Load(config, state)
	if err != nil {
		return t, nil, err
	}
	never, shared, warn := set.NeverBan(ctx, time.Now(), func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	})
	rules := set.Policy()
	if other != nil {
		if rules, err = set.WithRules(other.Topic, settings.Rules(other.Rules)); err != nil {
			return t, warn, err
		}
	}
	r, err := ledger.NewReplay(rules, never, shared)
	if err != nil {
		return t, warn, err
	}
	if err := feed(r.Feed); err != nil {
		return t, warn, err
	}
	return r.End(), warn, nil
}
