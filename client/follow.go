package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// silence is how long the agent may say nothing: three of its heartbeats.
	silence = 30 * time.Second
	// maxAnswer bounds the agent's other answers.
	maxAnswer = 1 << 20
	// minWait and maxWait bound the time between two attempts to connect.
	minWait = 100 * time.Millisecond
	maxWait = 10 * time.Second
	// dialTimeout is long for a unix socket whose owner is alive.
	dialTimeout = 5 * time.Second
	// streamType asks for the stream in frames instead of lines of JSON.
	streamType = "application/vnd.banmesh.stream"
)

// follower is the state of following one agent over many connections.
type follower struct {
	c *Client
	// run and serial are where the state in c.bans comes from.
	run    string
	serial uint64
	// next is the snapshot that is being read, beside the state in use: a
	// connection that breaks off in the middle changes nothing.
	next *bans
}

// follow keeps the state until ctx ends.
func (c *Client) follow(ctx context.Context) {
	f := &follower{c: c}
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		progress, err := f.once(ctx)
		if ctx.Err() != nil {
			c.lost(ErrClosed)
			return
		}
		c.lost(err)
		if progress {
			wait = minWait
		}
		// Programs that lost one agent together do not come back together.
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			c.lost(ErrClosed)
			return
		}
	}
}

// once follows over one connection. progress says that it got a whole state.
func (f *follower) once(ctx context.Context) (progress bool, err error) {
	q := url.Values{"topic": f.c.options.Topics}
	if f.run != "" {
		q.Set("run", f.run)
		q.Set("since", strconv.FormatUint(f.serial, 10))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := f.c.transport()
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/stream?"+q.Encode(), nil)
	if err != nil {
		return false, fmt.Errorf("building the request: %w", err)
	}
	req.Header.Set("Accept", streamType)
	// The agent is dead when it is silent, whatever its socket looks like.
	alive := time.AfterFunc(silence, cancel)
	defer alive.Stop()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false, fmt.Errorf("reaching the agent: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return false, ErrRefused
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("the agent answered %s", resp.Status)
	case resp.Header.Get("Content-Type") != streamType:
		return false, fmt.Errorf("%w: it is %.64q", errFrame, resp.Header.Get("Content-Type"))
	}
	f.next = nil
	r, buf := bufio.NewReaderSize(resp.Body, 64<<10), []byte(nil)
	for {
		x, err := readFrame(r, &buf)
		switch {
		case errors.Is(err, context.Canceled):
			return progress, fmt.Errorf("the agent was silent for %s", silence)
		case err != nil:
			return progress, fmt.Errorf("reading the stream: %w", err)
		}
		alive.Reset(silence)
		whole, err := f.take(x)
		if err != nil {
			return progress, err
		}
		if whole {
			progress = true
			f.c.heard(false)
		}
	}
}

// transport dials the agent's socket.
func (c *Client) transport() *http.Transport {
	d := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", c.options.Socket)
	}}
}

// take applies one frame. whole says that the client's state is complete.
func (f *follower) take(x frame) (whole bool, err error) {
	switch {
	case x.kind == frameSnapshot:
		return f.snapshot(x)
	case f.next != nil:
		return false, fmt.Errorf("%w: %q in the middle of a snapshot", errFrame, x.kind)
	case x.kind == frameResumed:
		if x.run != f.run || x.serial != f.serial {
			return false, fmt.Errorf("%w: it resumed at another place than ours", errFrame)
		}
		return true, nil
	case f.run == "":
		return false, fmt.Errorf("%w: %q before the first snapshot", errFrame, x.kind)
	case x.kind == frameHeartbeat:
		return true, nil
	case x.kind == frameChange:
		return true, f.change(x)
	}
	// A frame of a later version that we need not understand.
	return false, nil
}

// snapshot takes one part of a snapshot and, with the last, makes it the state.
func (f *follower) snapshot(x frame) (whole bool, err error) {
	if f.next == nil {
		f.next = newBans()
	}
	for _, u := range x.set {
		if err := f.next.load(u); err != nil {
			return false, err
		}
	}
	if x.more {
		return false, nil
	}
	f.next.finish()
	f.c.bans.Store(f.next)
	f.run, f.serial, f.next = x.run, x.serial, nil
	f.c.heard(true)
	f.c.notify(func() Change { return Change{Added: f.c.bans.Load().all(), Reset: true} })
	return true, nil
}

func (f *follower) change(x frame) error {
	if err := f.c.bans.Load().apply(x.set, x.lift); err != nil {
		return err
	}
	f.serial = x.serial
	f.c.notify(func() Change {
		var ch Change
		for _, u := range x.set {
			ch.Added = append(ch.Added, Ban{u.key.String(), u.label.topic, u.label.class, u.label.origin, time.Unix(int64(u.until), 0).UTC()})
		}
		for _, u := range x.lift {
			ch.Lifted = append(ch.Lifted, Ban{Target: u.key.String(), Topic: u.label.topic})
		}
		return ch
	})
	return nil
}

// heard notes that the agent lives and the state is right. After a snapshot the
// client is ready from the same moment on: who waits for that never sees a state
// that is complete and yet stale.
func (c *Client) heard(snapshot bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.status.Connected {
		c.log.Info("following the agent's bans", "socket", c.options.Socket, "bans", c.bans.Load().len())
	}
	c.status.Connected, c.status.Heard, c.status.Error = true, time.Now(), ""
	if snapshot && !c.status.Ready {
		c.status.Ready = true
		close(c.ready)
	}
}

// lost notes that the state grows old.
func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Connected || c.status.Error == "" {
		c.log.Warn("lost the agent: going on with the bans that are known", "socket", c.options.Socket, "error", err)
	}
	c.status.Connected, c.status.Error, c.err = false, err.Error(), err
}
