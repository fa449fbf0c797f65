package pairing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"banmesh/internal/ban"
)

// done is the joiner's last message: the outcome of the offer.
type done struct {
	Joined bool   `json:"joined"`
	Fault  string `json:"fault,omitempty"`
}

// reply is the host's answer to a request.
type reply struct {
	Offer *Offer `json:"offer,omitempty"`
	Fault string `json:"fault,omitempty"`
}

// A Host waits for one machine that knows the code.
type Host struct {
	Code Code
	// Offer certifies a node and gives its configuration. It is called once at
	// most, for a caller that has shown that it knows the code.
	Offer func(Request) (Offer, error)
	// Wrong is told of each wrong code, and how many more are taken.
	Wrong func(from net.Addr, left int)
}

// A Joined is a machine that was paired.
type Joined struct {
	Node    ban.Node
	Address net.Addr
	// Confirmed says that it wrote everything down. Otherwise the connection ended
	// first: it is certified and may or may not know that.
	Confirmed bool
	Fault     string // why it did not; empty where it did not say
}

// Serve waits on l, which it closes, until a machine has come with the code, too many
// wrong ones came, or ctx ends. Callers are answered side by side, so that one that
// says nothing keeps nobody out.
func (h *Host) Serve(ctx context.Context, l net.Listener) (*Joined, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s := &serving{h: h, end: cancel}
	slots := make(chan struct{}, maxConns)
	for {
		c, err := l.Accept()
		if err != nil {
			wg.Wait()
			if s.joined != nil {
				return s.joined, nil
			}
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, context.DeadlineExceeded):
				return nil, ErrExpired
			case cause != nil:
				return nil, cause
			}
			return nil, fmt.Errorf("waiting for the other machine: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			s.serve(ctx, c)
		})
	}
}

// serving is the state that the callers of one code share.
type serving struct {
	h   *Host
	end context.CancelCauseFunc

	mu     sync.Mutex
	wrong  int
	used   bool
	joined *Joined
}

// admit judges a confirmation: one right one in all, and few wrong ones before it.
func (s *serving) admit(c net.Conn) func(bool) error {
	return func(right bool) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.used || s.wrong >= MaxWrong:
			return ErrTries
		case right:
			s.used = true
			return nil
		}
		s.wrong++
		if s.h.Wrong != nil {
			s.h.Wrong(c.RemoteAddr(), MaxWrong-s.wrong)
		}
		if s.wrong >= MaxWrong {
			s.end(ErrTries)
		}
		return ErrCode
	}
}

// serve answers one caller.
func (s *serving) serve(ctx context.Context, c net.Conn) {
	// A pairing that is admitted goes on to its end; others end with the host.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	ch, err := answer(c, s.h.Code, s.admit(c))
	stop()
	if err != nil {
		return
	}
	joined, err := s.hand(ch)
	if err != nil {
		s.end(err)
		return
	}
	joined.Address = c.RemoteAddr()
	s.mu.Lock()
	s.joined = joined
	s.mu.Unlock()
	s.end(nil)
}

// confirmTime is how long a joiner may take to write everything down.
const confirmTime = 30 * time.Second

// hand gives the offer to a machine that knows the code.
func (s *serving) hand(ch *channel) (*Joined, error) {
	var q Request
	if err := ch.receive(&q, stepTime); err != nil {
		return nil, fmt.Errorf("a machine came with the code, and the connection ended: %w", err)
	}
	key, err := q.Key()
	var o Offer
	if err == nil {
		o, err = s.h.Offer(q)
	}
	if err != nil {
		_ = ch.send(reply{Fault: err.Error()}) // the error is what counts
		return nil, err
	}
	joined := &Joined{Node: ban.NodeOf(key[:])}
	if err := ch.send(reply{Offer: &o}); err != nil {
		return joined, nil //nolint:nilerr // it is certified, and did not confirm
	}
	var d done
	if err := ch.receive(&d, confirmTime); err != nil {
		return joined, nil //nolint:nilerr // the same
	}
	joined.Confirmed, joined.Fault = d.Joined, d.Fault
	if len(joined.Fault) > 400 {
		joined.Fault = joined.Fault[:400]
	}
	_ = ch.send(done{Joined: d.Joined}) // the other side has written all down
	return joined, nil
}
