package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// stdin reads a stream to its end. It has no position: what was read is gone.
type stdin struct {
	r    io.Reader
	gate *gate
	o    Options
	counters
}

func newStdin(g *gate, o Options) part {
	r := o.Stdin
	if r == nil {
		r = os.Stdin
	}
	return &stdin{r: r, gate: g, o: o}
}

// run reads in a goroutine of its own, because reading cannot be cut short. If
// ctx ends first, that goroutine is left until its read returns; a stream that
// can be closed is closed, which ends it.
func (s *stdin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		if c, ok := s.r.(io.Closer); ok {
			_ = c.Close() // nobody reads it any more
		}
	})
	defer stop()
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
	r := bufio.NewReaderSize(s.r, MaxLine+2)
	for ctx.Err() == nil {
		line, err := r.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			if err := s.hand(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte{'\n'}), []byte{'\r'}), cut); err != nil {
				return &handlerError{err: err}
			}
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading standard input: %w", err)
		}
	}
	return nil
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
