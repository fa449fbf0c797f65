package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/printable"
)

const (
	// livePath is the stream of changes.
	livePath = "/live"
	// liveHeader marks the request of a script that brings a page up to date.
	liveHeader = "X-Live"
	// liveEvery is how often the state is looked at while somebody follows along.
	liveEvery = 2 * time.Second
	// beatEvery keeps connections open that a proxy would close.
	beatEvery = 20 * time.Second
	// liveStall is how long a reader may take no byte.
	liveStall = 10 * time.Second
	// livePending bounds the messages that wait for one reader.
	livePending = 4
)

// state is the part of the status that every page shows, and a sign of all
// the rest: whoever follows along asks for the page again when it changes.
type state struct {
	Bans     int    `json:"bans"`
	Watched  int    `json:"watched"`
	Waiting  int    `json:"waiting"`
	Warnings int    `json:"warnings"`
	Cursor   uint64 `json:"cursor"` // of the newest event
}

func stateOf(s control.Status) state {
	return state{Bans: s.Bans, Watched: s.Watched, Waiting: s.Waiting, Warnings: len(s.Warnings)}
}

// state asks the node.
func (s *Server) state(ctx context.Context, node *control.Client) (state, error) {
	var status control.Status
	if err := node.Get(ctx, "/v1/status", nil, &status); err != nil {
		return state{}, err
	}
	var events control.EventPage
	if err := node.Get(ctx, "/v1/history", url.Values{"limit": {"1"}}, &events); err != nil {
		return state{}, err
	}
	out := stateOf(status)
	out.Cursor = events.Next
	return out, nil
}

// A hub tells everybody who follows along. Its memory is bounded: so many
// readers, so many messages for each, and a reader that is too slow is let go.
type hub struct {
	look func(context.Context, *control.Client) (state, error)
	log  *slog.Logger
	wake chan struct{} // capacity one: somebody came

	mu      sync.Mutex
	readers map[*reader]bool
	last    []byte // the newest message
}

type reader struct {
	messages chan []byte
	gone     chan struct{} // closed when it is let go
}

func newHub(look func(context.Context, *control.Client) (state, error), log *slog.Logger) *hub {
	return &hub{look: look, log: log, wake: make(chan struct{}, 1), readers: map[*reader]bool{}}
}

// join adds a reader; false where there is no room.
func (h *hub) join() (*reader, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) >= MaxLive {
		return nil, false
	}
	x := &reader{messages: make(chan []byte, livePending), gone: make(chan struct{})}
	h.readers[x] = true
	if h.last != nil {
		x.messages <- h.last
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
	return x, true
}

// leave takes a reader out.
func (h *hub) leave(x *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, x)
}

// count is how many follow along.
func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers)
}

// tell gives a message to everybody who has room for it, and lets the others go:
// their browser asks again and is told the newest state.
func (h *hub) tell(message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = message
	for x := range h.readers {
		select {
		case x.messages <- message:
		default:
			delete(h.readers, x)
			close(x.gone)
		}
	}
}

// run looks at the node while anybody follows along.
func (h *hub) run(ctx context.Context, node *control.Client) {
	var last state
	for {
		for h.count() == 0 {
			select {
			case <-ctx.Done():
				return
			case <-h.wake:
			}
		}
		next, err := h.look(ctx, node)
		if err == nil && (next != last || h.empty()) {
			last = next
			h.tell(message(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(liveEvery):
		}
	}
}

func (h *hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last == nil
}

// message writes a state as an event of the stream.
func message(s state) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers alone
	}
	return fmt.Appendf(nil, "event: state\nid: %s\ndata: %s\n\n", strconv.FormatUint(s.Cursor, 10), printable.JSON(b))
}

// live streams changes to one reader until it goes, its session ends, or it is too
// slow.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	x, ok := s.hub.join()
	if !ok {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many follow along", http.StatusServiceUnavailable)
		return
	}
	defer s.hub.leave(x)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // the whole answer takes longer than a request may
	send := func(b []byte) bool {
		_ = c.SetWriteDeadline(time.Now().Add(liveStall))
		_, err := w.Write(b)
		return err == nil && c.Flush() == nil
	}
	if !send([]byte("retry: 5000\n\n")) {
		return
	}
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	who := sessionOf(r.Context())
	over := time.NewTimer(who.until.Sub(s.o.Now()))
	defer over.Stop()
	for {
		var b []byte
		select {
		case <-r.Context().Done():
			return
		case <-who.ended:
			return
		case <-over.C:
			return
		case <-x.gone:
			return
		case <-beat.C:
			b = []byte(": beat\n\n")
		case b = <-x.messages:
			b = bytes.Clone(b)
		}
		if !send(b) {
			return
		}
	}
}
