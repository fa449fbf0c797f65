package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Fifty clients hear goodbye over the drain time, each at its turn, and are
// served until then. Only lower bounds of times are asserted.
func TestFiftyClientsHearGoodbyeOverTheDrainTime(t *testing.T) {
	t.Parallel()
	const n, drain = 50, time.Second
	b, err := New(Options{Network: "net", Anonymous: AccessFull, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}, Limits: Limits{DrainTime: drain}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var clients []*client
	for i := range n {
		c := dial(t, b)
		c.connect(connecting{id: fmt.Sprint("agent-", i), flags: 2, keepalive: 60})
		clients = append(clients, c)
	}
	began := time.Now()
	cancel()
	gone := make([]time.Duration, n)
	var wait sync.WaitGroup
	for i, c := range clients {
		wait.Go(func() {
			if p, err := c.receive(); err == nil {
				t.Errorf("client %d got a packet of kind %d: MQTT 3.1.1 has no DISCONNECT from a server", i, p.kind)
			}
			gone[i] = time.Since(began)
		})
	}
	wait.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
	slices.Sort(gone)
	for i, at := range gone {
		if want := goodbyeAt(i, n, drain); at < want {
			t.Errorf("goodbye %d came after %v, before its turn at %v", i, at, want)
		}
	}
	if last := gone[n-1]; last < drain*9/10 {
		t.Errorf("the last goodbye came after %v of a drain time of %v", last, drain)
	}
}
