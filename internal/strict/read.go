package strict

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Read gives the content of a file of at most so many bytes. The error is a
// [*Fault] that wraps its cause.
func Read(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Unreadable(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, Unreadable(path, err)
	}
	if len(b) > most {
		return nil, &Fault{File: path, Text: fmt.Sprintf("larger than %d bytes", most)}
	}
	return b, nil
}

// Unreadable is the fault of a file or directory that cannot be read.
func Unreadable(path string, err error) *Fault {
	f := &Fault{File: path, Text: err.Error(), cause: err}
	if at, ok := errors.AsType[*fs.PathError](err); ok && at.Path == path {
		f.Text = at.Err.Error()
	}
	return f
}
