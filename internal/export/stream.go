package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"banmesh/internal/ban"
)

// snapshotEntries is how many entries one line of a snapshot carries: about
// 60 kB of text.
const snapshotEntries = 512

// streamLine is one line of /v1/stream. A reader learns the run and the serial
// from the first line; when it comes back it may give both (run=, since=) and
// gets only the changes, if that is still kept.
type streamLine struct {
	// Type is "snapshot" (a part of one; More says that another follows),
	// "resumed" (the reader's state is right up to Serial), "change" or
	// "heartbeat".
	Type   string      `json:"type"`
	Run    string      `json:"run,omitempty"` // of snapshot and resumed
	Serial uint64      `json:"serial"`
	More   bool        `json:"more,omitempty"`
	Bans   []jsonEntry `json:"bans,omitempty"`
	Lifted []jsonKey   `json:"lifted,omitempty"`
}

type jsonKey struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
}

// stream writes a snapshot and then every change. A reader that is slower than
// the write timeout or the history is cut off: it comes back for a snapshot.
func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filter, err := readTopics(q)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	since, resume, err := h.readSince(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err, "")
		return
	}
	release, ok := h.admit(w, r)
	if !ok {
		return
	}
	defer release()
	encode, kind := encodeLine, "application/x-ndjson"
	if r.Header.Get("Accept") == FramesType {
		encode, kind = encodeFrame, FramesType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	// A server's read timeout would end the request's context in mid-stream.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	s := &streamWriter{h: h, lines: h.lines(w), filter: filter, encode: encode}
	if err := s.run(r.Context(), since, resume); r.Context().Err() == nil {
		h.o.Log.Info("a reader of the stream was cut off", "peer", r.RemoteAddr, "error", err)
	}
}

// readSince reads where a reader left off. Another run's serial means nothing
// here, so such a reader gets a snapshot.
func (h *Handler) readSince(r *http.Request) (since uint64, resume bool, err error) {
	q := r.URL.Query()
	if !q.Has("since") {
		return 0, false, nil
	}
	since, err = strconv.ParseUint(q.Get("since"), 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("since: %.32q is not a serial", q.Get("since"))
	}
	return since, q.Get("run") == h.run, nil
}

// streamWriter writes one stream.
type streamWriter struct {
	h      *Handler
	lines  *lineWriter
	filter topics
	encode func(into []byte, p streamPart) ([]byte, error)
	buf    []byte
}

// run writes until the reader goes, or is too slow, or ctx ends, and says why.
func (s *streamWriter) run(ctx context.Context, serial uint64, resume bool) error {
	var err error
	if resume {
		_, err = s.h.o.Bans.Next(canceled(ctx), serial)
	}
	switch {
	case !resume, errors.Is(err, ErrBehind):
		serial, err = s.snapshot(ctx)
	default:
		err = s.write(streamPart{kind: "resumed", run: s.h.run, serial: serial})
	}
	if err != nil {
		return err
	}
	for {
		serial, err = s.step(ctx, serial)
		if err != nil {
			return err
		}
	}
}

// step waits for a change, at most a heartbeat long, and writes it.
func (s *streamWriter) step(ctx context.Context, serial uint64) (uint64, error) {
	limit, cancel := context.WithTimeout(ctx, s.h.o.Heartbeat)
	defer cancel()
	batch, err := s.h.o.Bans.Next(limit, serial)
	switch {
	case ctx.Err() != nil:
		return serial, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return serial, s.write(streamPart{kind: "heartbeat", serial: serial})
	case err != nil:
		return serial, err
	}
	part := streamPart{kind: "change", serial: batch.Serial}
	for _, e := range batch.Bans {
		if s.filter.has(e.Topic) {
			part.bans = append(part.bans, e)
		}
	}
	for _, k := range batch.Lifted {
		if s.filter.has(k.Topic) {
			part.lifted = append(part.lifted, k)
		}
	}
	return batch.Serial, s.write(part)
}

func (s *streamWriter) snapshot(ctx context.Context) (uint64, error) {
	serial, entries := s.h.o.Bans.Snapshot()
	part := streamPart{kind: "snapshot", run: s.h.run, serial: serial, more: true}
	for e := range entries {
		if !s.filter.has(e.Topic) {
			continue
		}
		part.bans = append(part.bans, e)
		if len(part.bans) < snapshotEntries {
			continue
		}
		if err := errors.Join(ctx.Err(), s.write(part)); err != nil {
			return serial, err
		}
		part.bans = part.bans[:0]
	}
	part.more = false
	return serial, s.write(part)
}

func (s *streamWriter) write(p streamPart) (err error) {
	if s.buf, err = s.encode(s.buf[:0], p); err != nil {
		return err
	}
	s.lines.raw(s.buf)
	return s.lines.flush()
}

// streamPart is the content of one line or frame.
type streamPart struct {
	kind   string // of streamLine
	run    string
	serial uint64
	more   bool
	bans   []Entry
	lifted []Key
}

// encodeLine appends a part as a line of JSON.
func encodeLine(into []byte, p streamPart) ([]byte, error) {
	line := streamLine{Type: p.kind, Run: p.run, Serial: p.serial, More: p.more}
	for _, e := range p.bans {
		line.Bans = append(line.Bans, toJSON(e))
	}
	for _, k := range p.lifted {
		line.Lifted = append(line.Lifted, jsonKey(k))
	}
	b, err := json.Marshal(line)
	if err != nil {
		return into, fmt.Errorf("encoding a line: %w", err)
	}
	return append(append(into, b...), '\n'), nil
}

// canceled gives a context that has ended, to ask Next without waiting.
func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
