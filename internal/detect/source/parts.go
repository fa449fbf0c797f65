package source

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A part reads one kind of a spec. Positions and status are added to those of the
// other parts gave.
type part interface {
	run(ctx context.Context) error
	position(*Position)
	status(*Status)
}

// A gate lets one line through at a time, whichever part it comes from. Parts
// hold it for a batch of lines, so that a checkpoint waits for at most one.
type gate struct {
	sync.Mutex
	handle func(Line) error
}

// source runs the parts of a spec side by side.
type source struct {
	gate  *gate
	parts []part
	now   func() time.Time
}

func (s *source) Run(ctx context.Context, handle func(Line) error) error {
	s.gate.Lock()
	s.gate.handle = handle
	s.gate.Unlock()
	group, running := errgroup.WithContext(ctx)
	for _, p := range s.parts {
		group.Go(func() error { return p.run(running) })
	}
	err := group.Wait()
	if ctx.Err() != nil && err == ctx.Err() {
		return nil
	}
	return err
}

func (s *source) Position() Position {
	p := Position{Time: s.now()}
	for _, part := range s.parts {
		part.position(&p)
	}
	return p
}

func (s *source) Checkpoint(f func(Position)) {
	s.gate.Lock()
	defer s.gate.Unlock()
	f(s.Position())
}

func (s *source) Status() Status {
	var st Status
	for _, part := range s.parts {
		part.status(&st)
	}
	return st
}
