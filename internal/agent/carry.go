package agent

import (
	"context"
	"fmt"
	"time"

	"banmesh/internal/ban"
)

// carryWithin is how long a command waits for the kernel. A write takes
// milliseconds; behind a batch of a joined feed, or with a program of the
// operator's as enforcer, some seconds.
const carryWithin = 5 * time.Second

// Carry implements [api.Firewall].
func (e *enforcer) Carry(ctx context.Context) string {
	if e.fw == nil {
		return ""
	}
	return e.ask(ctx, e.asked)
}

// Check implements [api.Firewall].
func (e *enforcer) Check(ctx context.Context) (bans int, late string) {
	if e.fw == nil {
		return 0, ""
	}
	late = e.ask(ctx, e.look)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drift.Bans, late
}

// ask gives the loop a request and waits for its answer.
func (e *enforcer) ask(ctx context.Context, to chan chan string) string {
	within, cancel := context.WithTimeout(ctx, carryWithin)
	defer cancel()
	answer := make(chan string, 1)
	select {
	case to <- answer:
	case <-within.Done():
		return late
	}
	select {
	case text := <-answer:
		return text
	case <-within.Done():
		return late
	}
}

const late = "the firewall has not confirmed it within 5 s; it is written as soon as it can be"

// carried says why the firewall lacks some of the changes that it was given.
func (e *enforcer) carried() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.fault != nil:
		return fmt.Sprintf("not in the firewall yet: %v; it is tried again every second", e.fault)
	case e.drift.Pending > 0:
		return fmt.Sprintf("not in the firewall yet: %d bans wait; it is tried again every second", e.drift.Pending)
	}
	return ""
}

// Unenforced implements [api.Firewall].
func (e *enforcer) Unenforced(ctx context.Context, topic ban.Topic, target ban.Target) string {
	if _, ip := target.Prefix(); !ip {
		return ""
	}
	if mode, why := e.Enforcement(); mode == "off" || mode == "observe" {
		return "no packet is dropped: " + why
	}
	e.mu.Lock()
	off := e.drift.Off
	e.mu.Unlock()
	if off {
		return "no packet is dropped: enforcement was switched off by hand, `agent firewall resume` ends that"
	}
	if t, ok := e.o.settings().Find(topic); ok && t.Scope.Observe {
		return "no packet is dropped: the topic only counts packets"
	}
	held, ok := kernelHolds(ctx, e.o.settings(), target)
	switch {
	case !ok: // nothing that could be asked
	case held.Never:
		return "no packet is dropped: the kernel lets it pass before any ban"
	case !held.Banned:
		return "the kernel does not show it: `agent firewall check`"
	}
	return ""
}
