package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// An Input is a stream that several sources may read one after the other, as a
// program's standard input over reloads: bytes that one has not read, the next one
// reads, half a line included.
type Input struct {
	buffer *bufio.Reader
	file   *os.File // to wait for; nil when reading cannot be waited for
}

// NewInput prepares a stream. A file is waited for, so that reading it can be
// cut short; any other reader cannot.
func NewInput(r io.Reader) *Input {
	file, _ := r.(*os.File)
	return &Input{buffer: bufio.NewReaderSize(r, MaxLine+2), file: file}
}

// waitStep is how long a stream that is silent is waited for in one go, in
// milliseconds: how late the end of a context is noticed.
const waitStep = 100

// wait returns when the stream has something to read, or ctx has ended.
func (in *Input) wait(ctx context.Context) error {
	for in.file != nil && ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(in.file.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, waitStep)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for input: %w", err)
		case n > 0:
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// next gives a line without its end, and whether it is cut. With [io.EOF] it
// gives the bytes after the last line's end, if any.
func (in *Input) next(ctx context.Context) (line []byte, cut bool, err error) {
	for {
		held, err := in.buffer.Peek(in.buffer.Buffered())
		if err != nil {
			return nil, false, err
		}
		if bytes.IndexByte(held, '\n') >= 0 || len(held) == in.buffer.Size() {
			line, err := in.buffer.ReadSlice('\n')
			return line, errors.Is(err, bufio.ErrBufferFull), nil
		}
		if err := in.wait(ctx); err != nil {
			return nil, false, err
		}
		if _, err := in.buffer.Peek(len(held) + 1); err != nil {
			rest, peeking := in.buffer.Peek(in.buffer.Buffered())
			if peeking != nil {
				return nil, false, peeking
			}
			_, discarding := in.buffer.Discard(len(rest))
			return rest, false, errors.Join(err, discarding)
		}
	}
}

// stdin reads a stream to its end. It has no position: lines that were read are gone.
type stdin struct {
	in   *Input
	gate *gate
	o    Options
	counters
}

func newStdin(g *gate, o Options) part {
	in, ok := o.Stdin.(*Input)
	switch {
	case ok:
	case o.Stdin != nil:
		in = NewInput(o.Stdin)
	default:
		in = NewInput(os.Stdin)
	}
	return &stdin{in: in, gate: g, o: o}
}

// Read implements [io.Reader].
func (in *Input) Read(b []byte) (int, error) { return in.buffer.Read(b) }

// run reads until the stream or ctx ends. A reader that is no file may hold it
// up until its read returns; one that can be closed is closed for that.
func (s *stdin) run(ctx context.Context) error {
	if c, ok := s.o.Stdin.(io.Closer); ok && s.in.file == nil {
		stop := context.AfterFunc(ctx, func() {
			_ = c.Close() // nobody reads it any more
		})
		defer stop()
	}
	err := s.read(ctx)
	if ctx.Err() != nil {
		return nil
	}
	var handling *handlerError
	if errors.As(err, &handling) {
		return handling.err
	}
	if err != nil {
		s.failed(err)
		s.o.Log.Warn("standard input cannot be read", "error", err)
	}
	if s.o.Once {
		return nil
	}
	<-ctx.Done() // the other parts of the spec go on
	return nil
}

func (s *stdin) read(ctx context.Context) error {
	continued := false // the rest of a line that was cut
	for {
		line, cut, err := s.in.next(ctx)
		if len(line) > 0 && !continued {
			if err := s.hand(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'}), cut); err != nil {
				return &handlerError{err: err}
			}
		}
		continued = cut
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading standard input: %w", err)
		}
	}
}

func (s *stdin) hand(text []byte, cut bool) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if cut || len(text) > MaxLine {
		text = text[:min(len(text), MaxLine)]
		s.cut.Add(1)
	}
	if err := s.gate.handle(Line{Text: text, Stream: "stdin"}); err != nil {
		return err
	}
	s.counters.read.Add(1)
	s.lastLine.Store(s.o.Now().UnixNano())
	return nil
}

func (s *stdin) position(*Position) {}

func (s *stdin) status(st *Status) {
	s.addTo(st)
	st.Streams = append(st.Streams, Stream{Name: "stdin"})
}
