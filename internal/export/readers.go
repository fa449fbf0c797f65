package export

import (
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxReaders bounds those that are remembered; the one that asked longest ago
// makes room.
const maxReaders = 64

// A Reader is a program that read lists since the agent started.
type Reader struct {
	Format string     // "netset"
	From   netip.Addr // zero on a unix socket
	Last   time.Time
	Listed int // the length of its last whole list
}

// readers remembers who read lists.
type readers struct {
	mu   sync.Mutex
	list []Reader
}

// note remembers an answer; listed is negative where the reader had the list.
func (r *readers) note(format string, q *http.Request, listed int, now time.Time) {
	from, _ := peerOf(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.list, func(x Reader) bool { return x.Format == format && x.From == from })
	x := Reader{Format: format, From: from}
	if i >= 0 {
		x = r.list[i]
		r.list = slices.Delete(r.list, i, i+1)
	} else if len(r.list) >= maxReaders {
		r.list = slices.Delete(r.list, 0, 1)
	}
	x.Last = now
	if listed >= 0 {
		x.Listed = listed
	}
	r.list = append(r.list, x)
}

// Readers lists the programs that read lists lately, the last first.
func (h *Handler) Readers() []Reader {
	h.readers.mu.Lock()
	defer h.readers.mu.Unlock()
	list := slices.Clone(h.readers.list)
	slices.Reverse(list)
	return list
}
