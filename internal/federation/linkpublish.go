package federation

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/wire"
)

// publish queues retained messages. Those queued while the link is down are
// dropped: after connecting, the session finds out which messages the broker lacks.
func (l *link) publish(out []outgoing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected {
		return
	}
	l.back.published(out, l.now())
	l.out = append(l.out, out...)
	if len(l.out) > outMost {
		l.out = nil
		l.giveUp(errNotTaken)
		return
	}
	select {
	case l.outReady <- struct{}{}:
	default:
	}
}

// publisher sends the queue, in order, with a window of unacknowledged
// messages.
func (l *link) publisher(ctx context.Context, c mqtt.Client) error {
	var tokens []mqtt.Token
	acknowledged := func(n int) {
		tokens = slices.Delete(tokens, 0, n)
		l.mu.Lock()
		l.unanswered = slices.Delete(l.unanswered, 0, n)
		l.mu.Unlock()
	}
	for {
		l.mu.Lock()
		var next *outgoing
		if len(l.out) > 0 {
			next, l.out = &outgoing{l.out[0].name, l.out[0].payload}, l.out[1:]
		}
		l.mu.Unlock()
		if next == nil {
			for len(tokens) > 0 {
				if err := wait(ctx, tokens[0], ackTimeout); err != nil {
					return fmt.Errorf("publishing: %w", err)
				}
				acknowledged(1)
			}
			select {
			case <-l.outReady:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if len(tokens) >= inFlight {
			if err := wait(ctx, tokens[0], ackTimeout); err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
			acknowledged(1)
		}
		payload := next.payload
		if payload == nil {
			payload = []byte{}
		}
		tokens = append(tokens, c.Publish(next.name.String(), 1, next.name.Kind != wire.KindLive, payload))
		l.mu.Lock()
		l.sent++
		l.unanswered = append(l.unanswered, l.now())
		l.mu.Unlock()
	}
}

// An offer is the version of our card or a document that was last sent, and when.
type offer struct {
	raw []byte
	at  time.Time
}

// showPatience is how long a broker has to show a message that was sent to it.
const showPatience = 10 * time.Second

// saw notes which card and documents of ours the broker shows.
func (l *link) saw(n wire.Name, raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown != nil {
		l.shown[n] = raw
	}
}

// lacks says whether our card or a document of ours should be published to the
// broker now: it has shown none or another one for a while.
func (l *link) lacks(n wire.Name, raw []byte, again bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected || now.Sub(l.since) < fenceWait || !again && bytes.Equal(l.shown[n], raw) {
		return false
	}
	if o := l.offered[n]; bytes.Equal(o.raw, raw) && now.Sub(o.at) < showPatience {
		return false
	}
	l.offered[n] = offer{raw, now}
	return true
}
