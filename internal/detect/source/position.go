package source

import (
	"crypto/sha256"
	"encoding/hex"
	"sync/atomic"
	"time"
)

// A Position is where a source goes on after a restart. It marshals to JSON;
// the zero value means that nothing was read before.
type Position struct {
	// Time is when the position was taken.
	Time time.Time `json:"time,omitzero"`
	// Files and Docker hold one entry for each file being followed, rotated
	// ones that may still be written to included.
	Files  []FilePosition `json:"files,omitempty"`
	Docker []FilePosition `json:"docker,omitempty"`
	// Journal holds one entry for each sequence of journal entries.
	Journal []JournalPosition `json:"journal,omitempty"`
}

// A FilePosition is how far one file has been handled. Device and inode find
// the file under whatever name it has now; the two fingerprints tell it from
// another file that took over its inode, and from one that was emptied and
// written anew.
type FilePosition struct {
	// Path is the name that a glob gives, Target the file that it linked to.
	Path   string `json:"path"`
	Target string `json:"target,omitempty"`
	Device uint64 `json:"dev"`
	Inode  uint64 `json:"inode"`
	// Offset is the byte after the last handled line.
	Offset int64 `json:"offset"`
	// Cut says that the line at Offset was handled already, cut at [MaxLine].
	Cut bool `json:"cut,omitempty"`
	// New says that nothing of the file was handled yet, because it may turn
	// out to be a copy of another.
	New bool `json:"new,omitempty"`
	// Done says that the file had left its name and was read to its end, and that it
	// had not grown for so long that nothing more is expected.
	Done bool `json:"done,omitempty"`
	// Head is a hash of the first HeadSize bytes.
	Head     string `json:"head,omitempty"`
	HeadSize int    `json:"head_size,omitempty"`
	// Tail is a hash of the TailSize bytes before TailEnd, which is near Offset.
	Tail     string `json:"tail,omitempty"`
	TailSize int    `json:"tail_size,omitempty"`
	TailEnd  int64  `json:"tail_end,omitempty"`
}

// A JournalPosition is the last handled entry of one sequence: the journal
// numbers all entries that one journald writes, over all its files.
type JournalPosition struct {
	SequenceID string `json:"seqnum_id"`
	Sequence   uint64 `json:"seqnum"`
	BootID     string `json:"boot_id,omitempty"`
	// Realtime is the entry's time, in microseconds since the Unix epoch, and
	// Monotonic its time since boot.
	Realtime  uint64 `json:"realtime"`
	Monotonic uint64 `json:"monotonic,omitempty"`
	// Root is the directory that it was read from.
	Root string `json:"root,omitempty"`
	// Of tells several journals apart, as [Spec.JournalKey] does: two of them may
	// hold one file.
	Of string `json:"of,omitempty"`
}

// fingerprint is the hash that positions hold.
func fingerprint(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// A Status is a source's account of itself.
type Status struct {
	// Read counts lines handed on, Cut those of them that were too long.
	Read uint64 `json:"read"`
	Cut  uint64 `json:"cut"`
	// Dropped counts lines that were given up: datagrams that were no syslog,
	// records that were no JSON, damaged journal entries.
	Dropped uint64 `json:"dropped"`
	// Errors counts failures to read; LastError is the newest and LastErrorAt when
	// it was.
	Errors      uint64    `json:"errors"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// LastLine is when a line was last handed on, by this machine's clock.
	LastLine time.Time `json:"last_line,omitzero"`
	// Streams are the files and listeners in use.
	Streams []Stream `json:"streams,omitempty"`
}

// A Stream is one file, journal or listener.
type Stream struct {
	Name string `json:"name"`
	// Size and Offset are in bytes for files and in entries for journals.
	Size   int64 `json:"size"`
	Offset int64 `json:"offset"`
	// Backlog is the amount known to be unread, in the same unit.
	Backlog int64 `json:"backlog"`
	// Rotated says that the file has left its name and is read to its end.
	Rotated bool `json:"rotated,omitempty"`
	// Reader says how a journal file is read: "native" or "journalctl".
	Reader string `json:"reader,omitempty"`
}

// counters are the running totals of one part.
type counters struct {
	read, cut, dropped, errors atomic.Uint64
	lastLine                   atomic.Int64 // nanoseconds since the Unix epoch
	lastError                  atomic.Pointer[failure]
}

// A failure to read, and when it was.
type failure struct {
	text string
	at   time.Time
}

func (c *counters) failed(err error) {
	c.errors.Add(1)
	c.lastError.Store(&failure{err.Error(), time.Now()})
}

func (c *counters) addTo(st *Status) {
	st.Read += c.read.Load()
	st.Cut += c.cut.Load()
	st.Dropped += c.dropped.Load()
	st.Errors += c.errors.Load()
	if f := c.lastError.Load(); f != nil && f.at.After(st.LastErrorAt) {
		st.LastError, st.LastErrorAt = f.text, f.at
	}
	if ns := c.lastLine.Load(); ns > 0 {
		if t := time.Unix(0, ns); t.After(st.LastLine) {
			st.LastLine = t
		}
	}
}
