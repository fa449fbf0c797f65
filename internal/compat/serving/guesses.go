package serving

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	// freeGuesses are the wrong credentials of one source in a row that are
	// answered at once: a key that was mistyped, or removed.
	freeGuesses = 5
	// guessPause is the wait of every further one, and forgetGuesses how long a
	// source has to be silent to begin anew.
	guessPause    = time.Second
	forgetGuesses = 10 * time.Minute
	// maxPaused bounds the answers that wait, maxSources the sources that are
	// remembered.
	maxPaused  = 64
	maxSources = 1024
)

// Guesses paces those who have no valid credentials. It is asked after the
// credentials were looked at, so that nobody who has valid ones ever waits for
// those who share the address. The zero value needs Log.
type Guesses struct {
	Log *slog.Logger
	// Of says in the log who was refused: a constant sentence.
	Of string
	// Elapsed is the time of the process; nil means the system's.
	Elapsed func() time.Duration

	mu      sync.Mutex
	sources map[netip.Prefix]*source
	paused  int
	total   uint64
	last    Refused
	said    time.Duration
	began   time.Time
	unsaid  int
}

type source struct {
	count int
	last  time.Duration
}

// Refused describes the wrong credentials since the start.
type Refused struct {
	Count uint64
	From  netip.Addr // the last one's, the zero address on a unix socket
	At    time.Time
}

// Refused tells of them.
func (g *Guesses) Refused() Refused {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.last
	r.Count = g.total
	return r
}

// Wrong notes wrong credentials of an address, and waits where it has had
// several. The answer is to be status; the connection ends with it, so that
// each guess costs one.
func (g *Guesses) Wrong(ctx context.Context, w http.ResponseWriter, from netip.Addr, status int) (answer int) {
	w.Header().Set("Connection", "close")
	pause, room := g.note(from)
	switch {
	case !pause:
		return status
	case !room:
		w.Header().Set("Retry-After", strconv.Itoa(int(guessPause/time.Second)))
		return http.StatusTooManyRequests
	}
	t := time.NewTimer(guessPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.paused--
	g.mu.Unlock()
	return status
}

// note counts a wrong credential. pause says that it waits, room that it may,
// which is then taken.
func (g *Guesses) note(from netip.Addr) (pause, room bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.elapsed()
	g.total++
	g.unsaid++
	g.last = Refused{From: from, At: time.Now()}
	if g.total == 1 || now-g.said >= time.Minute {
		g.Log.Warn(g.Of, slog.String("peer", from.String()), slog.Int("refused", g.unsaid))
		g.said, g.unsaid = now, 0
	}
	x := g.source(from, now)
	if x.count++; x.count <= freeGuesses {
		return false, false
	}
	if g.paused >= maxPaused {
		return true, false
	}
	g.paused++
	return true, true
}

// source gives the record of an address, of IPv6 of its /64. The one that was
// silent longest makes room.
func (g *Guesses) source(from netip.Addr, now time.Duration) *source {
	bits := min(from.BitLen(), 64)
	p, _ := from.Prefix(bits) // the zero prefix for a unix socket
	x, ok := g.sources[p]
	if ok && now-x.last < forgetGuesses {
		x.last = now
		return x
	}
	if g.sources == nil {
		g.sources = map[netip.Prefix]*source{}
	}
	if !ok {
		MakeRoom(g.sources, maxSources, func(x *source) time.Duration { return x.last })
	}
	x = &source{last: now}
	g.sources[p] = x
	return x
}

// MakeRoom removes, of a full map, the value that was silent longest.
func MakeRoom[K comparable, V any](m map[K]V, most int, last func(V) time.Duration) {
	if len(m) < most {
		return
	}
	var oldest K
	least := time.Duration(math.MaxInt64)
	for k, v := range m {
		if at := last(v); at < least {
			oldest, least = k, at
		}
	}
	delete(m, oldest)
}

func (g *Guesses) elapsed() time.Duration {
	if g.Elapsed != nil {
		return g.Elapsed()
	}
	if g.began.IsZero() {
		g.began = time.Now()
	}
	return time.Since(g.began)
}

// AddrOf gives the address of a request's RemoteAddr, the zero address on a unix
// socket.
func AddrOf(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap().WithZone("")
}
