package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banmesh/internal/printable"
)

// The modes of an agent's sockets. Who may write to the control socket commands
// the agent; whom the query socket answers is decided by the user at its other end.
const (
	ControlMode fs.FileMode = 0o660
	QueryMode   fs.FileMode = 0o666
)

// Listen makes the control socket with [ControlMode], so that its directory and
// group decide who may command the agent. A socket that a dead agent left is
// replaced; one that answers, or a path that is no socket, is an error.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path, ControlMode)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// making is the end of a socket's name until its mode is right.
const making = ".new"

func listen(path string, mode fs.FileMode) (*unlinker, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s is in the way: it is not a socket", path)
		}
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, fmt.Errorf("another agent answers on %s", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing an old control socket: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the control socket's directory: %w", err)
	}
	// The socket is made under a name of its own and renamed once its mode is
	// right, so that there is no moment in which anybody may connect.
	temporary := path + making
	os.Remove(temporary)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, mode), os.Rename(temporary, path)); err != nil {
		l.Close()
		os.Remove(temporary)
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	return &unlinker{l, path}, nil
}

// unlinker removes the socket file when the listener closes.
type unlinker struct {
	*net.UnixListener
	path string
}

func (u *unlinker) Close() error {
	err := u.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	os.Remove(u.path)
	return err
}

// stopWithin is how long requests under way may last when a server stops; those
// that wait for something to happen are told to end by half of it.
const stopWithin = 2 * time.Second

// Serve answers on l until ctx ends, and lets requests under way come to their end
// within [stopWithin]. It closes l.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger, options ...func(*http.Server)) error {
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var open sync.WaitGroup // connections
	s := &http.Server{
		Handler:           http.MaxBytesHandler(handler, MaxBody),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed, http.StateHijacked:
				open.Done()
			}
		},
	}
	for _, o := range options {
		o(s)
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		s.Close()
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	// Shutdown would drop a connection whose request had not arrived.
	l.Close()
	<-failed
	s.SetKeepAlivesEnabled(false)
	defer time.AfterFunc(stopWithin/2, end).Stop()
	defer time.AfterFunc(stopWithin, func() { s.Close() }).Stop()
	open.Wait()
	return nil
}

// Handle adapts a function that answers with JSON or an error. A
// [RefusedError] becomes the answer that its code names.
func Handle(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			WriteError(w, err)
			return
		}
		WriteJSON(w, http.StatusOK, v)
	}
}

// streamStall is how long a client may take no byte of a stream.
const streamStall = 30 * time.Second

// Stream adapts a function that writes bytes. Its error before the first byte is
// answered as such; one after it ends the answer before its end, which the
// client notices.
func Stream(f func(io.Writer) (int64, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := &stream{w: w, c: http.NewResponseController(w)}
		_, err := f(out)
		switch {
		case err == nil:
		case out.began:
			panic(http.ErrAbortHandler)
		default:
			WriteError(w, err)
		}
	}
}

// stream is an answer in the making.
type stream struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	began bool
}

// Write implements [io.Writer].
func (s *stream) Write(b []byte) (int, error) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", "application/octet-stream")
	}
	_ = s.c.SetWriteDeadline(time.Now().Add(streamStall)) // a test's recorder has none
	return s.w.Write(b)
}

// WriteJSON writes v with a status.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(printable.JSONWriter(w))
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client went away; there is nobody to tell
}

// AnswerOf gives an error as a client is told it.
func AnswerOf(err error) ErrorAnswer {
	answer := ErrorAnswer{Error: err.Error(), Code: CodeInternal}
	if e, ok := errors.AsType[*RefusedError](err); ok {
		answer.Code, answer.Hint = e.Code, e.Hint
	}
	return answer
}

// WriteError writes err as an [ErrorAnswer].
func WriteError(w http.ResponseWriter, err error) {
	answer := AnswerOf(err)
	status := http.StatusInternalServerError
	switch answer.Code {
	case CodeBad:
		status = http.StatusBadRequest
	case CodeRefused, CodeRestart, CodeAsk:
		status = http.StatusConflict
	case CodeMissing:
		status = http.StatusNotFound
	}
	WriteJSON(w, status, answer)
}

// Decode reads a JSON body strictly: unknown fields and trailing bytes are
// errors.
func Decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &RefusedError{Code: CodeBad, Text: fmt.Sprintf("reading the request: %v", err)}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &RefusedError{Code: CodeBad, Text: "reading the request: more than one value"}
	}
	return nil
}
