package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	// maxLine bounds a line of the stream: the agent's are about 60 kB.
	maxLine = 1 << 20
	// minWait and maxWait bound the time between two attempts to connect.
	minWait = 100 * time.Millisecond
	maxWait = 10 * time.Second
	// dialTimeout is long for a unix socket whose owner is alive.
	dialTimeout = 5 * time.Second
)

// line is one line of the agent's stream; see docs/client.md.
type line struct {
	Type   string     `json:"type"`
	Run    string     `json:"run"`
	Serial uint64     `json:"serial"`
	More   bool       `json:"more"`
	Bans   []lineBan  `json:"bans"`
	Lifted []lineLift `json:"lifted"`
}

type lineBan struct {
	Target string `json:"target"`
	Topic  string `json:"topic"`
	Until  int64  `json:"until"`
	Class  string `json:"class"`
	Origin string `json:"origin"`
}

type lineLift struct {
	Target string `json:"target"`
	Topic  string `json:"topic"`
}

// follower is the state of following one agent over many connections.
type follower struct {
	c *Client
	// run and serial are where the state in c.bans comes from.
	run    string
	serial uint64
	// next is the snapshot that is being read, beside the state in use: a
	// connection that breaks off in the middle changes nothing.
	next *bans
	// labels holds each label once, because a million records would otherwise
	// hold a million copies.
	labels map[label]*label
}

// follow keeps the state until ctx ends.
func (c *Client) follow(ctx context.Context) {
	f := &follower{c: c, labels: make(map[label]*label)}
	for wait := minWait; ; wait = min(2*wait, maxWait) {
		progress, err := f.once(ctx)
		if ctx.Err() != nil {
			c.lost(errors.New("closed"))
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
			c.lost(errors.New("closed"))
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
	// The agent is dead when it is silent, whatever its socket looks like.
	alive := time.AfterFunc(silence, cancel)
	defer alive.Stop()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false, fmt.Errorf("reaching the agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the agent answered %s", resp.Status)
	}
	f.next = nil
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		alive.Reset(silence)
		whole, err := f.take(lines.Bytes())
		if err != nil {
			return progress, err
		}
		if whole {
			progress = true
			f.c.heard(false)
		}
	}
	switch {
	case errors.Is(lines.Err(), context.Canceled):
		return progress, fmt.Errorf("the agent was silent for %s", silence)
	case lines.Err() != nil:
		return progress, fmt.Errorf("reading the stream: %w", lines.Err())
	}
	return progress, io.ErrUnexpectedEOF
}

// transport dials the agent's socket.
func (c *Client) transport() *http.Transport {
	d := net.Dialer{Timeout: dialTimeout}
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", c.options.Socket)
	}}
}

// take applies one line. whole says that the client's state is complete.
func (f *follower) take(b []byte) (whole bool, err error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return false, fmt.Errorf("reading a line of the stream: %w", err)
	}
	switch {
	case l.Type == "snapshot":
		return f.snapshot(l)
	case f.next != nil:
		return false, fmt.Errorf("a %.32q line in the middle of a snapshot", l.Type)
	case l.Type == "resumed":
		if l.Run != f.run || l.Serial != f.serial {
			return false, errors.New("the agent resumed at another place than ours")
		}
		return true, nil
	case f.run == "":
		return false, fmt.Errorf("a %.32q line before the first snapshot", l.Type)
	case l.Type == "heartbeat":
		return true, nil
	case l.Type == "change":
		return true, f.change(l)
	}
	// A line of a later version that we need not understand.
	return false, nil
}

// snapshot takes one part of a snapshot and, with the last, makes it the state.
func (f *follower) snapshot(l line) (whole bool, err error) {
	if f.next == nil {
		f.next = newBans()
	}
	set, err := f.updates(l.Bans)
	if err != nil {
		return false, err
	}
	f.next.apply(set, nil, true)
	if l.More {
		return false, nil
	}
	f.c.bans.Store(f.next)
	f.run, f.serial, f.next = l.Run, l.Serial, nil
	f.c.heard(true)
	f.c.notify(func() Change { return Change{Added: f.c.bans.Load().all(), Reset: true} })
	return true, nil
}

func (f *follower) change(l line) error {
	set, err := f.updates(l.Bans)
	if err != nil {
		return err
	}
	var lift []update
	for _, k := range l.Lifted {
		t, err := parseTarget(k.Target)
		if err != nil {
			return fmt.Errorf("the agent lifted %.64q: %w", k.Target, err)
		}
		lift = append(lift, update{t, record{label: f.label(label{topic: k.Topic})}})
	}
	f.c.bans.Load().apply(set, lift, false)
	f.serial = l.Serial
	f.c.notify(func() Change {
		var ch Change
		for _, b := range l.Bans {
			ch.Added = append(ch.Added, Ban{b.Target, b.Topic, b.Class, b.Origin, time.Unix(b.Until, 0).UTC()})
		}
		for _, k := range l.Lifted {
			ch.Lifted = append(ch.Lifted, Ban{Target: k.Target, Topic: k.Topic})
		}
		return ch
	})
	return nil
}

func (f *follower) updates(list []lineBan) ([]update, error) {
	set := make([]update, 0, len(list))
	for _, b := range list {
		t, err := parseTarget(b.Target)
		if err != nil {
			return nil, fmt.Errorf("the agent banned %.64q: %w", b.Target, err)
		}
		set = append(set, update{t, record{until: b.Until, label: f.label(label{b.Topic, b.Class, b.Origin})}})
	}
	return set, nil
}

// label gives the one copy of a label. The agent has few; should it ever have
// many, they are simply not shared.
func (f *follower) label(l label) *label {
	if one, ok := f.labels[l]; ok {
		return one
	}
	kept := &label{l.topic, l.class, l.origin}
	if len(f.labels) < 1024 {
		f.labels[l] = kept
	}
	return kept
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
	c.status.Connected, c.status.Error = false, err.Error()
}

// all gives every ban, in no order.
func (b *bans) all() (list []Ban) {
	list = make([]Ban, 0, b.len())
	list = collect(&b.v4, key4.String, list)
	list = collect(&b.v6, key6.String, list)
	return collect(&b.wallets, walletText, list)
}

func collect[K comparable](t *table[K], text func(K) string, list []Ban) []Ban {
	for i := range t.shards {
		m := t.shards[i].Load()
		if m == nil {
			continue
		}
		for k, r := range *m {
			for s := text(k); r != nil; r = r.next {
				list = append(list, r.ban(s))
			}
		}
	}
	return list
}
