package export

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	h.list(w, r, listKind{path: "txt", kind: "ip", contentType: plainText, repeats: once}, func(out *lineWriter, l *listing) {
		for i := range l.entries {
			out.line([]byte(l.entries[i].Target.String()))
		}
	})
}

// json answers with an array of all there is to say about each ban.
func (h *Handler) json(w http.ResponseWriter, r *http.Request) {
	h.list(w, r, listKind{path: "json", kind: "all", contentType: "application/json"}, func(out *lineWriter, l *listing) {
		writeArray(out, "[", l.entries, func(e Entry) any { return toJSON(e) })
		out.line([]byte("]"))
	})
}

// writeArray writes the beginning of an array and its elements, one a line.
func writeArray(out *lineWriter, begin string, entries []Entry, element func(Entry) any) {
	for i, e := range entries {
		b, err := json.Marshal(element(e))
		if err != nil {
			continue // every field marshals
		}
		before := []byte(",")
		if i == 0 {
			before = []byte(begin)
		}
		out.line(append(before, b...))
	}
	if len(entries) == 0 {
		out.line([]byte(begin))
	}
}

// listKind says how a list is made.
type listKind struct {
	path        string // behind "/v1/bans."
	kind        string // the default of the kind parameter
	contentType string
	repeats     repeats
}

// repeats says which entries that ban the same a list has.
type repeats int

const (
	each    repeats = iota // a target in each of its topics
	once                   // each target once
	reduced                // and none that a wider prefix covers
)

// list gathers the entries of a request, answers 304 when the reader has them,
// and writes them with render.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, of listKind, render func(*lineWriter, *listing)) {
	q := r.URL.Query()
	filter, err := readTopics(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	wanted, err := readKind(q, of.kind)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "kind is ip, ipv4, ipv6, wallet or all")
		return
	}
	part, err := readSelection(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "such as limit=10000 and minprefix=24 or minprefix=24,48")
		return
	}
	release, ok := h.admit(w, r)
	if !ok {
		return
	}
	defer release()
	serial, all := h.o.Bans.Snapshot()
	q.Del("token") // it says who asks, not for which list
	tag := h.tag(serial, q)
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	if has(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		h.readers.note(of.path, r, -1, h.o.Now())
		return
	}
	select {
	case h.rendering <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	l := gather(all, of.repeats, part, func(e Entry) bool { return filter.has(e.Topic) && wanted(e.Target) })
	<-h.rendering
	l.now = h.o.Now()
	switch q.Get("kind") {
	case "ipv4":
		l.only = "4"
	case "ipv6":
		l.only = "6"
	}
	w.Header().Set("Content-Type", of.contentType)
	w.Header().Set("X-Banmesh-Listed", strconv.Itoa(len(l.entries)))
	w.Header().Set("X-Banmesh-Total", strconv.Itoa(l.total))
	out := h.lines(w)
	render(out, l)
	if err := out.finish(); err != nil {
		h.o.Log.Debug("a list was not read to its end", "peer", r.RemoteAddr, "error", err)
		return
	}
	h.readers.note(of.path, r, len(l.entries), h.o.Now())
}

// gather sorts the wanted entries and takes the selected part of them.
func gather(all iter.Seq[Entry], of repeats, part selection, wanted func(Entry) bool) *listing {
	var entries []Entry
	for e := range all {
		if wanted(e) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		if c := a.Target.Compare(b.Target); c != 0 {
			return c
		}
		return strings.Compare(string(a.Topic), string(b.Topic))
	})
	var wide ban.Target
	left := 0
	entries = slices.DeleteFunc(entries, func(e Entry) bool {
		if !part.wide(e.Target) {
			return false
		}
		if e.Target != wide || of == each {
			left++
		}
		wide = e.Target
		return true
	})
	switch of {
	case reduced:
		entries = reduce(entries)
	case once:
		entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.Target == b.Target })
	}
	l := &listing{total: len(entries) + left}
	l.entries = part.cut(entries)
	return l
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
