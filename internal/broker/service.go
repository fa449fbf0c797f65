package broker

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Public serves HTTP without a password: /metrics, and
// /healthz, which answers 200 where the broker serves and its disk takes the messages that
// it admits.
func (b *Broker) Public() http.Handler {
	m := http.NewServeMux()
	m.Handle("GET /metrics", serveMetrics(b.registry, b.options.Version))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := b.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return m
}

// TellSystemd says when the broker is ready, that it lives, and when it stops,
// until ctx ends (sd_notify(3), sd_watchdog_enabled(3)). Without systemd it
// only waits.
func (b *Broker) TellSystemd(ctx context.Context) error {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			b.log.Warn("telling systemd", "error", err)
		}
	}
	notify(daemon.SdNotifyReady)
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		b.log.Warn("reading the watchdog's time", "error", err)
	}
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every / 2)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			return nil
		case <-tick:
			b.Status() // takes every lock that a stuck broker would hold
			notify(daemon.SdNotifyWatchdog)
		}
	}
}
