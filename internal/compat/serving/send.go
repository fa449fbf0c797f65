package serving

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// DefaultHeld bounds the bytes of answers that are being sent: four of a
	// hundred thousand bans.
	DefaultHeld = 64 << 20
	// DefaultStall is how long one part of an answer may take to be read.
	DefaultStall = 10 * time.Second

	part = 64 << 10
	// grace is how long a reader on a busy machine may take nothing and is not
	// slow.
	grace = 100 * time.Millisecond
)

// ErrCut is the error of [Sender.Send] for a reader that makes room for others.
var ErrCut = errors.New("the answer was cut off: its reader is slow, and others wait")

// A Sender writes long answers to readers of any speed. Equal answers are one
// slice, which counts once; when all together are more than Held bytes the
// readers that stall longest are cut off, and ask again. The zero value has
// defaults.
type Sender struct {
	Held  int           // 0 means [DefaultHeld]
	Stall time.Duration // 0 means [DefaultStall]

	mu      sync.Mutex
	sending []*sending
	again   bool // relieve is due
}

// sending is one answer under way.
type sending struct {
	body     *byte
	size     int
	cut      bool
	progress time.Time // when its reader took the last part
	control  *http.ResponseController
}

// Send writes body, which nobody may change meanwhile. Its errors are the
// reader's: there is nobody to tell.
func (s *Sender) Send(w http.ResponseWriter, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	x := &sending{body: &body[0], size: len(body), control: http.NewResponseController(w)}
	s.begin(x)
	defer s.end(x)
	for len(body) > 0 {
		if !s.extend(x) {
			return ErrCut
		}
		n := min(len(body), part)
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// extend gives the next part its time, unless the answer was cut off.
func (s *Sender) extend(x *sending) bool {
	stall := s.Stall
	if stall == 0 {
		stall = DefaultStall
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.cut {
		return false
	}
	// A writer that knows no deadline, as in a test, has nobody to wait for.
	x.progress = time.Now()
	_ = x.control.SetWriteDeadline(x.progress.Add(stall))
	return true
}

func (s *Sender) begin(x *sending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.progress = time.Now()
	s.sending = append(s.sending, x)
	s.relieve()
}

// relieve cuts those off whose reader has taken nothing for longest, until the
// rest fits; s.mu is held. Readers that took something just now are let be, and
// looked at again soon.
func (s *Sender) relieve() {
	most := s.Held
	if most == 0 {
		most = DefaultHeld
	}
	now := time.Now()
	for s.held() > most {
		var slowest *sending
		for _, x := range s.sending {
			if !x.cut && (slowest == nil || x.progress.Before(slowest.progress)) {
				slowest = x
			}
		}
		if slowest == nil || now.Sub(slowest.progress) < grace {
			if !s.again {
				s.again = true
				time.AfterFunc(grace, func() {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.again = false
					s.relieve()
				})
			}
			return
		}
		slowest.cut = true
		_ = slowest.control.SetWriteDeadline(time.Unix(1, 0)) // as in extend
	}
}

// held counts the bytes of different answers that are not cut off; s.mu is held.
func (s *Sender) held() (n int) {
	seen := make(map[*byte]bool, len(s.sending))
	for _, x := range s.sending {
		if !x.cut && !seen[x.body] {
			seen[x.body] = true
			n += x.size
		}
	}
	return n
}

func (s *Sender) end(x *sending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = slices.DeleteFunc(s.sending, func(y *sending) bool { return x == y })
}
