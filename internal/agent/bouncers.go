package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lapi"
	"banmesh/internal/compat/recent"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
	"banmesh/internal/config"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/settings"
)

// bouncersFile keeps the hashes of bouncers' keys, below the state directory.
const bouncersFile = "bouncers.json"

// bouncers answers CrowdSec's bouncers, where [lapi] says so. Keys can be made
// in any case.
type bouncers struct {
	log      *slog.Logger
	settings func() *settings.Settings
	changes  *recent.Log
	keys     *credentials.Keys
	server   *lapi.Server // nil while it is off

	mu sync.Mutex
	at string
	// observed are the topics that were observed when bouncers were told last.
	observed map[ban.Topic]bool
}

// newBouncers opens the keys. operator names the operators of a ban for
// counters, "" for none.
func newBouncers(current func() *settings.Settings, table *export.Table, operator func(ban.Topic, ban.Target) string, shared *usage.Attribution, changes *recent.Log, state string, now func() time.Time, log *slog.Logger) (*bouncers, error) {
	b := &bouncers{log: log.With(slog.String("part", "lapi")), settings: current, changes: changes, observed: map[ban.Topic]bool{}}
	var err error
	if b.keys, err = credentials.OpenKeys(filepath.Join(state, bouncersFile)); err != nil {
		return nil, err
	}
	b.observe()
	c := current().Config().LAPI
	if c.Listen == "" {
		return b, nil
	}
	o := lapi.Options{Table: table, Keys: b.keys, Log: b.log, Now: now, Observed: b.isObserved, Units: c.ClientUnits, Shared: shared, Recent: changes}
	if len(o.Units) == 0 {
		o.Units = []string{"bouncer-ou"}
	}
	if c.Origin == "operator" {
		o.Operator = operator
	}
	for _, text := range c.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, current().Config().At("lapi.trusted_proxies", "%v", err)
		}
		o.Proxies = append(o.Proxies, p)
	}
	b.server = lapi.New(o)
	return b, nil
}

// isObserved says that a topic's bans are counted and not enforced.
func (b *bouncers) isObserved(t ban.Topic) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observed[t]
}

// observe takes over which topics are observed, and has bouncers and CrowdSec told of the
// bans of those that changed.
func (b *bouncers) observe() {
	var changed []ban.Topic
	b.mu.Lock()
	for _, t := range b.settings().Topics() {
		if b.observed[t.Topic] != t.Scope.Observe {
			b.observed[t.Topic] = t.Scope.Observe
			changed = append(changed, t.Topic)
		}
	}
	b.mu.Unlock()
	if c := b.settings().Config(); c.LAPI.Listen+c.CrowdSec.Listen == "" {
		return
	}
	for _, t := range changed {
		b.changes.Touch(t)
	}
}

// run answers until ctx ends.
func (b *bouncers) run(ctx context.Context) error {
	if b.server == nil {
		return nil
	}
	c := b.settings().Config().LAPI
	l, err := listenForBouncers(ctx, c)
	if err != nil {
		return fmt.Errorf("answering bouncers: %w", err)
	}
	b.mu.Lock()
	b.at = c.Listen
	if !strings.HasPrefix(c.Listen, "/") {
		b.at = l.Addr().String()
	}
	b.mu.Unlock()
	b.log.InfoContext(ctx, "bouncers are answered", slog.String("address", b.Listen()))
	return serving.Serve(ctx, l, b.server, serving.Options{Log: b.log})
}

// Refused implements [api.Bouncers].
func (b *bouncers) Refused() serving.Refused {
	if b.server == nil {
		return serving.Refused{}
	}
	return b.server.Refused()
}

// sharedTraffic divides traffic that programs report for several operators' bans.
func sharedTraffic(table *export.Table, operator func(ban.Topic, ban.Target) string) *usage.Attribution {
	start := time.Now()
	return &usage.Attribution{
		Elapsed: func() time.Duration { return time.Since(start) },
		Bans: func(yield func(usage.Ban) bool) {
			_, entries := table.Snapshot()
			for e := range entries {
				if _, ok := e.Target.Prefix(); ok && !yield(usage.Ban{Topic: e.Topic, Operator: operator(e.Topic, e.Target), Here: e.Here}) {
					return
				}
			}
		},
	}
}

// listenForBouncers listens on a unix socket or on TCP, there with TLS where a
// certificate is named.
func listenForBouncers(ctx context.Context, c config.LAPI) (net.Listener, error) {
	if strings.HasPrefix(c.Listen, "/") {
		return control.Listen(c.Listen)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.Listen)
	if err != nil || c.Certificate == "" {
		return l, err
	}
	conf, err := bouncersTLS(c)
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, conf), nil
}

func bouncersTLS(c config.LAPI) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.ClientCA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, err
	}
	conf.ClientCAs, conf.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", c.ClientCA)
	}
	return conf, nil
}

// Keys implements [api.Bouncers].
func (b *bouncers) Keys() *credentials.Keys { return b.keys }

// Listen implements [api.Bouncers].
func (b *bouncers) Listen() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

// Clients implements [api.Bouncers].
func (b *bouncers) Clients() []lapi.Status {
	if b.server == nil {
		return nil
	}
	return b.server.Clients()
}
