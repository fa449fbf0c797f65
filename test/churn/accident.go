package main

import (
	"context"
	"syscall"
	"time"
)

// An accident is something that happens to a node or to its broker.
type accident struct {
	name string
	do   func(*world, context.Context) error
}

// accidents are all there are; the first survived of them end no process.
var accidents = []accident{
	{"log rotated by a new file", func(w *world, _ context.Context) error { return w.rotate(false) }},
	{"log rotated by copying", func(w *world, _ context.Context) error { return w.rotate(true) }},
	{"broker cut off", func(w *world, _ context.Context) error { return w.pause(w.broker) }},
	{"author starved", func(w *world, _ context.Context) error { return w.pause(w.nodes[0]) }},
	{"reload", func(w *world, _ context.Context) error {
		return w.nodes[w.random.IntN(len(w.nodes))].signal(syscall.SIGHUP)
	}},
	{"disk stalls", func(w *world, ctx context.Context) error {
		return w.disk.freeze(ctx, time.Duration(500+w.random.IntN(2500))*time.Millisecond)
	}},
	{"nothing", func(*world, context.Context) error { return nil }},
	{"nothing", func(*world, context.Context) error { return nil }},
	{"author killed", func(w *world, ctx context.Context) error { return w.restart(ctx, w.nodes[0]) }},
	{"subscriber killed", func(w *world, ctx context.Context) error {
		return w.restart(ctx, w.nodes[1+w.random.IntN(subscribers)])
	}},
	{"broker killed", func(w *world, ctx context.Context) error { return w.restart(ctx, w.broker) }},
}

const survived = 8

// pause stops a process for some seconds, which go by while the load goes on.
func (w *world) pause(p *process) error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	w.resume = append(w.resume, resumed{p, time.Now().Add(time.Duration(1+w.random.IntN(4)) * time.Second)})
	return nil
}
