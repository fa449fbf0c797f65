package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"

	"golang.org/x/term"

	"banmesh/internal/printable"
)

// usualWidth is a terminal's where it does not say, in columns.
const usualWidth = 80

// Terminal gives a writer for an output of the process: where a person looks
// at it on a terminal, whatever is printed passes [printable.Writer], so that
// no text from outside reaches the terminal even where a command forgot about
// it, tables are as wide as it is, and [Paint] paints unless the environment has
// NO_COLOR (https://no-color.org). A file or a pipe gets the bytes as they are.
func Terminal(f *os.File) io.Writer {
	if !term.IsTerminal(int(f.Fd())) {
		return f
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = usualWidth
	}
	return newTerminal(f, width, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// A terminal is a person's screen.
type terminal struct {
	raw   io.Writer
	text  io.Writer // raw, behind a filter
	width int
	// mark begins and ends a change of colour in the text written to it; nobody
	// outside can know it. It is empty where nothing is painted.
	mark []byte
}

func newTerminal(w io.Writer, width int, painted bool) *terminal {
	t := &terminal{raw: w, text: printable.Writer(w), width: width}
	if painted {
		var secret [8]byte
		_, _ = rand.Read(secret[:]) // never fails
		t.mark = []byte("\x00" + hex.EncodeToString(secret[:]))
	}
	return t
}

// Write implements [io.Writer].
func (t *terminal) Write(b []byte) (int, error) {
	rest := b
	for len(t.mark) > 0 {
		before, after, found := bytes.Cut(rest, t.mark)
		if !found || len(after) == 0 {
			break
		}
		if _, err := t.text.Write(before); err != nil {
			return 0, err
		}
		if _, err := io.WriteString(t.raw, sequences[Colour(after[0])]); err != nil {
			return 0, err
		}
		rest = after[1:]
	}
	if _, err := t.text.Write(rest); err != nil {
		return 0, err
	}
	return len(b), nil
}

// A Colour says how much something matters.
type Colour byte

// The colours.
const (
	Plain  Colour = '0'
	Good   Colour = 'g'
	Doubt  Colour = 'y'
	Bad    Colour = 'r'
	Strong Colour = 'b' // bold
)

// sequences are their control sequences (ECMA-48, SGR).
var sequences = map[Colour]string{Plain: "\x1b[0m", Good: "\x1b[32m", Doubt: "\x1b[33m", Bad: "\x1b[31m", Strong: "\x1b[1m"}

// Paint gives text that w shows in a colour, if w is a terminal that does.
func Paint(w io.Writer, c Colour, text string) string {
	t, ok := w.(*terminal)
	if !ok || len(t.mark) == 0 || text == "" {
		return text
	}
	return string(t.mark) + string(c) + text + string(t.mark) + string(Plain)
}

// Width is how many columns w shows, 0 where any number is as good.
func Width(w io.Writer) int {
	if t, ok := w.(*terminal); ok {
		return t.width
	}
	return 0
}

// Wide gives w without an end of the line.
func Wide(w io.Writer) io.Writer {
	if t, ok := w.(*terminal); ok {
		wide := *t
		wide.width = 0
		return &wide
	}
	return w
}

// Narrow gives a writer that shows columns, for tests and for output that goes
// to a terminal later.
func Narrow(w io.Writer, columns int) io.Writer { return newTerminal(w, columns, false) }
