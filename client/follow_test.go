package client

import (
	"log/slog"
	"testing"
)

// Whoever waited for the first snapshot must not be told that it is stale.
func TestAReadyClientIsConnected(t *testing.T) {
	c := &Client{log: slog.New(slog.DiscardHandler), ready: make(chan struct{})}
	c.bans.Store(newBans())
	f := &follower{c: c}
	for part, x := range []frame{{kind: frameSnapshot, run: "a", serial: 1, more: true}, {kind: frameSnapshot, run: "a", serial: 1}} {
		if _, err := f.take(x); err != nil {
			t.Fatal(err)
		}
		last := part == 1
		if s := c.Status(); s.Ready != last || s.Connected != last || s.Stale() || s.Heard.IsZero() == last {
			t.Errorf("after part %d: %+v", part, s)
		}
		select {
		case <-c.ready:
			if !last {
				t.Error("ready amid a snapshot")
			}
		default:
			if last {
				t.Error("nobody who waits is told")
			}
		}
	}
}
