package export

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// flushEvery is how many entries are written between two extensions of the
// write deadline.
const flushEvery = 4096

// text answers with one target a line, each once, sorted, as a firewall or
// another device loads. Such devices know no wallets, so kind=wallet asks for
// those alone, and kind=ip (the default), ipv4 and ipv6 for addresses.
func (h *Handler) text(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "ip", "text/plain; charset=utf-8", func(out *lineWriter, entries []Entry) {
		var last ban.Target
		for _, e := range entries {
			if e.Target != last {
				out.line([]byte(e.Target.String()))
			}
			last = e.Target
		}
	})
}

// json answers with an array of all there is to say about each ban.
func (h *Handler) json(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, "all", "application/json", func(out *lineWriter, entries []Entry) {
		for i, e := range entries {
			b, err := json.Marshal(toJSON(e))
			if err != nil {
				continue // every field marshals
			}
			before := []byte(",")
			if i == 0 {
				before = []byte("[")
			}
			out.line(append(before, b...))
		}
		if len(entries) == 0 {
			out.line([]byte("["))
		}
		out.line([]byte("]"))
	})
}

// list gathers the entries of a request, answers 304 when the reader has them,
// and writes them with render.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, defaultKind, contentType string, render func(*lineWriter, []Entry)) {
	q := r.URL.Query()
	filter, err := readTopics(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	wanted, err := readKind(q, defaultKind)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "kind is ip, ipv4, ipv6, wallet or all")
		return
	}
	release, ok := h.admit(w, r)
	if !ok {
		return
	}
	defer release()
	serial, all := h.o.Bans.Snapshot()
	tag := h.tag(serial, q)
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	if has(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	select {
	case h.rendering <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	var entries []Entry
	for e := range all {
		if filter.has(e.Topic) && wanted(e.Target) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := a.Target.Compare(b.Target); c != 0 {
			return c
		}
		return strings.Compare(string(a.Topic), string(b.Topic))
	})
	<-h.rendering
	w.Header().Set("Content-Type", contentType)
	out := h.lines(w)
	render(out, entries)
	if err := out.finish(); err != nil {
		h.o.Log.Debug("a list was not read to its end", "peer", r.RemoteAddr, "error", err)
	}
}

// admit bounds the long answers under way. The caller releases its share.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) (release func(), ok bool) {
	select {
	case h.streams <- struct{}{}:
		return func() { <-h.streams }, true
	default:
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, fmt.Errorf("%d readers are served already", cap(h.streams)), "try again in a moment")
		h.o.Log.Warn("too many readers of bans", "most", cap(h.streams), "peer", r.RemoteAddr)
		return nil, false
	}
}

// tag names a state of the table and the part that was asked for.
func (h *Handler) tag(serial uint64, q url.Values) string {
	f := fnv.New64a()
	io.WriteString(f, q.Encode()) // sorted by key; a hash never fails
	return fmt.Sprintf(`"%s-%d-%x"`, h.run, serial, f.Sum64())
}

// has says whether If-None-Match lists a tag (RFC 9110, section 13.1.2).
func has(headers []string, tag string) bool {
	for _, header := range headers {
		for s := range strings.SplitSeq(header, ",") {
			s = strings.TrimPrefix(strings.TrimSpace(s), "W/")
			if s == tag || s == "*" {
				return true
			}
		}
	}
	return false
}

// readKind gives the test that the kind parameter asks for.
func readKind(q url.Values, otherwise string) (func(ban.Target) bool, error) {
	kind := otherwise
	if q.Has("kind") {
		kind = q.Get("kind")
	}
	switch kind {
	case "all":
		return func(ban.Target) bool { return true }, nil
	case "wallet":
		return func(t ban.Target) bool { return t.Kind() == ban.KindWallet }, nil
	case "ip", "ipv4", "ipv6":
		return func(t ban.Target) bool {
			p, ok := t.Prefix()
			return ok && (kind == "ip" || p.Addr().Is4() == (kind == "ipv4"))
		}, nil
	}
	return nil, fmt.Errorf("unknown kind %.32q", kind)
}

// lineWriter writes lines and moves the connection's write deadline on, so
// that a reader may take long for the whole but not for a part.
type lineWriter struct {
	out     *bufio.Writer
	control *http.ResponseController
	timeout time.Duration
	lines   int
	err     error
}

func (h *Handler) lines(w http.ResponseWriter) *lineWriter {
	l := &lineWriter{out: bufio.NewWriterSize(w, 64<<10), control: http.NewResponseController(w), timeout: h.o.WriteTimeout}
	l.extend()
	return l
}

func (l *lineWriter) line(b []byte) {
	if l.err != nil {
		return
	}
	if l.lines++; l.lines%flushEvery == 0 {
		l.extend()
	}
	l.out.Write(b) // bufio keeps the error for Flush
	if err := l.out.WriteByte('\n'); err != nil {
		l.err = err
	}
}

// raw writes bytes that need no line's end.
func (l *lineWriter) raw(b []byte) { _, _ = l.out.Write(b) }

// flush sends all that was written, within the write timeout.
func (l *lineWriter) flush() error {
	l.extend()
	if err := l.out.Flush(); err != nil {
		return err
	}
	return l.control.Flush()
}

// finish sends the rest and clears the deadline for the connection's next
// request.
func (l *lineWriter) finish() error {
	if l.err != nil {
		return l.err
	}
	l.extend()
	if err := l.out.Flush(); err != nil {
		return err
	}
	return l.control.SetWriteDeadline(time.Time{})
}

func (l *lineWriter) extend() {
	// A writer that knows no deadline, as in a test, has nobody to wait for.
	_ = l.control.SetWriteDeadline(time.Now().Add(l.timeout))
}
