package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/gate"
)

// TestADenialLastsAndEndsOverAHundredDays moves the clock of a publisher with its
// broker and of a subscriber with its gate's list a day at a time: a wallet is
// denied, renewed before its end, and admitted a hundred days later; the
// publisher's certificate is renewed on the way, and the gate's list holds without
// the subscriber.
func TestADenialLastsAndEndsOverAHundredDays(t *testing.T) {
	t.Parallel()
	const topic = "broadcaster-addresses"
	const day = 24 * time.Hour
	var moved atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(moved.Load())) }
	start := func(config string) *node {
		n := &node{t: t, dir: t.TempDir(), now: now}
		n.configure(config)
		n.start()
		return n
	}
	alice := start(quiet + "[topics." + topic + "]\npublish = true\n")
	file := filepath.Join(t.TempDir(), "gate", "wallets")
	bob := start(fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\n[topics.%s]\nsubscribe = true\nban = \"any of alice\"\n[operators.alice]\nid = %q\n[gate]\nenabled = true\nlisten = \"127.0.0.1:1\"\nfile = %q\n",
		alice.a.sharing.broker.Addr(), topic, alice.a.sharing.Operator(), file))
	target := ban.MustTarget("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	w, _ := target.Wallet()
	deny := func(days int) {
		t.Helper()
		alice.post("/v1/bans", control.BanRequest{Target: target, Topic: topic, For: int64(time.Duration(days) * day / time.Second)}, nil)
	}
	// until gives the end of the denial that the gate reads, zero for none.
	until := func() time.Time {
		l, err := gate.ReadFile(file)
		if err != nil {
			return time.Time{}
		}
		d, _ := l.Denied(w, now())
		return d.Until
	}
	ends := func(want time.Time) func() bool {
		return func() bool {
			got := until()
			return !got.Before(want.Add(-time.Minute)) && got.Before(want.Add(time.Hour))
		}
	}
	deny(60)
	bob.eventually("the gate reads a denial of sixty days", ends(now().Add(60*day)))
	first := alice.a.sharing.identity.Expires()
	for range 50 {
		moved.Add(int64(day))
		bob.eventually("the denial holds", func() bool { return until().After(now()) })
	}
	deny(50)
	bob.eventually("the gate reads the renewal", ends(now().Add(50*day)))
	end := until()
	for range 45 {
		moved.Add(int64(day))
		bob.eventually("the renewed denial holds", func() bool { return until().After(now()) })
	}
	alice.eventually("the publisher renews its certificate", func() bool {
		return alice.a.sharing.identity.Expires().After(first) && alice.a.sharing.identity.Expires().After(now())
	})
	// The rest without the subscriber, and without the publisher.
	bob.stop()
	alice.stop()
	if got := until(); !got.Equal(end) {
		t.Errorf("without the agent the denial ends %s, want %s", got, end)
	}
	for !now().Add(day).After(end) {
		moved.Add(int64(day))
		if !until().After(now()) {
			t.Fatalf("admitted at %s, before its end %s", now(), end)
		}
	}
	moved.Add(int64(2 * day))
	if got := until(); !got.IsZero() {
		t.Errorf("denied until %s on day 102", got)
	}
	if _, err := gate.ReadFile(file); err != nil && !errors.Is(err, gate.ErrNone) {
		t.Error(err)
	}
}
