package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"banmesh/internal/printable"
)

// Terminal gives a writer for an output of the process: where a person looks
// at it on a terminal, whatever is printed passes [printable.Writer], so that
// no text from outside reaches the terminal even where a command forgot about
// it. A file or a pipe gets the bytes as they are.
func Terminal(f *os.File) io.Writer {
	if !term.IsTerminal(int(f.Fd())) {
		return f
	}
	return printable.Writer(f)
}
