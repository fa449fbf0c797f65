package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"
)

const (
	// maxQueue bounds the offences that wait for the agent; more are dropped
	// and counted: a flood of evidence is no reason to grow.
	maxQueue = 1024
	// maxReport is how many offences the agent takes in one request.
	maxReport = 256
	// reportTimeout bounds one request.
	reportTimeout = 10 * time.Second
	// maxOffenceAge is how old an offence the agent takes; older ones, kept
	// while the agent was down, are dropped.
	maxOffenceAge = 10 * time.Minute
)

// An Offence is one observation that a program makes of an address or wallet.
// It is evidence: the agent's own thresholds decide its fate, and
// wallets are never banned by evidence.
type Offence struct {
	Topic string
	// IP or Wallet is who did it; the one that is set counts.
	IP     netip.Addr
	Wallet [20]byte
	// Class is the kind: "auth", "invalid-user", "scan", "scan-weak", "flood",
	// "spam", "exploit", "payment" or "other".
	Class string
}

// Report hands an offence over to be sent, and never waits: false says that
// the queue is full or the offence makes no sense, and it was dropped. The
// agent must allow reports of the topic on its socket.
func (c *Client) Report(o Offence) bool {
	if c.known() == nil {
		return false
	}
	if !isTopic(o.Topic) || o.Class == "" || o.IP.IsValid() == (o.Wallet != [20]byte{}) {
		c.counted(0, 1)
		return false
	}
	select {
	case c.queue <- queued{o, time.Now()}:
		return true
	default:
		c.counted(0, 1)
		return false
	}
}

// queued is an offence and when it was seen.
type queued struct {
	Offence
	seen time.Time
}

// wireOffence is an offence as the agent reads it.
type wireOffence struct {
	Topic  string `json:"topic"`
	Target string `json:"target"`
	Class  string `json:"class"`
	Age    int64  `json:"age_ms"`
}

// report sends the queue of Report, several at once, until ctx ends.
// Offences that the agent could not be told are kept and tried again.
func (c *Client) report(ctx context.Context) {
	transport := c.transport()
	defer transport.CloseIdleConnections()
	var waiting []queued
	for wait := minWait; ; {
		if len(waiting) == 0 {
			select {
			case o := <-c.queue:
				waiting = append(waiting, o)
			case <-ctx.Done():
				return
			}
		}
		waiting = c.gather(waiting)
		taken, refused, err := c.send(ctx, transport, waiting)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.counted(taken, refused)
			waiting, wait = waiting[:0], minWait
			continue
		}
		c.log.Debug("offences wait for the agent", "count", len(waiting), "error", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, maxWait)
	}
}

// gather adds the waiting offences, and drops those too old to tell.
func (c *Client) gather(waiting []queued) []queued {
	for len(waiting) < maxReport {
		select {
		case o := <-c.queue:
			waiting = append(waiting, o)
			continue
		default:
		}
		break
	}
	kept := waiting[:0]
	for _, o := range waiting {
		if time.Since(o.seen) < maxOffenceAge {
			kept = append(kept, o)
		}
	}
	c.counted(0, len(waiting)-len(kept))
	return kept
}

// send makes one report. A report that the agent refuses as a whole counts as
// refused; an error means that it is worth another try.
func (c *Client) send(ctx context.Context, transport *http.Transport, list []queued) (taken, refused int, err error) {
	if len(list) == 0 {
		return 0, 0, nil
	}
	var body struct {
		Offences []wireOffence `json:"offences"`
	}
	for _, o := range list {
		target := walletText(o.Wallet)
		if o.IP.IsValid() {
			target = o.IP.Unmap().WithZone("").String()
		}
		body.Offences = append(body.Offences, wireOffence{o.Topic, target, o.Class, time.Since(o.seen).Milliseconds()})
	}
	b, err := json.Marshal(body)
	if err != nil {
		return 0, len(list), nil // such offences never become tellable
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/v1/offences", bytes.NewReader(b))
	if err != nil {
		return 0, 0, fmt.Errorf("building the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, 0, fmt.Errorf("reaching the agent: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("reading the answer: %w", err)
	case resp.StatusCode/100 == 5:
		return 0, 0, fmt.Errorf("the agent answered %s", resp.Status)
	case resp.StatusCode != http.StatusOK:
		c.log.Warn("the agent refused a report", "status", resp.Status, "answer", string(answer[:min(len(answer), 256)]))
		return 0, len(list), nil
	}
	var a struct {
		Taken int `json:"taken"`
	}
	if err := json.Unmarshal(answer, &a); err != nil || a.Taken < 0 || a.Taken > len(list) {
		return 0, len(list), nil
	}
	return a.Taken, len(list) - a.Taken, nil
}

func (c *Client) counted(reported, dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Reported += uint64(reported)
	c.status.Dropped += uint64(dropped)
}
