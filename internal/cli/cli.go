// Package cli is how the commands speak to people: errors with a hint, exit
// codes, tables and JSON.
package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"banmesh/internal/printable"
	"banmesh/internal/span"
)

// Exit codes of every command, also printed in its help.
const (
	ExitOK         = 0
	ExitError      = 1
	ExitUsage      = 2
	ExitPartly     = 3
	ExitNotRunning = 10
)

// ExitHelp is the section of a command's help that names its exit codes.
const ExitHelp = `
Exit codes: 0 done, 1 error, 2 wrong usage, 3 partly done or a question that nobody answered, 10 the agent is not running`

// An Error is shown to a person: the fault and its place, the mend, and
// the exit code. Several can be joined with [errors.Join].
type Error struct {
	Err  error
	Hint string
	Code int
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint attaches advice to an error; nil stays nil.
func Hint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Hint: fmt.Sprintf(format, args...), Code: ExitError}
}

// Usage is an error in how a command was called.
func Usage(format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Code: ExitUsage}
}

// Joined gives the errors of [errors.Join], each a fault of its own, and nil of any
// other error: one that wraps two, as fmt.Errorf("%w: %w") makes it, is one fault.
func Joined(err error) []error {
	if reflect.TypeOf(err) != joinType {
		return nil
	}
	joined, _ := err.(interface{ Unwrap() []error })
	return joined.Unwrap()
}

var joinType = reflect.TypeOf(errors.Join(errors.ErrUnsupported))

// Report prints err as "program: error: ..." and "program: hint: ..." lines
// and gives the exit code. Joined errors are printed one by one.
func Report(w io.Writer, program string, err error) int {
	return report(w, program, err, func(hint string) string { return hint })
}

func report(w io.Writer, program string, err error, rename func(string) string) int {
	if err == nil {
		return ExitOK
	}
	if all := Joined(err); all != nil {
		code := ExitOK
		for _, e := range all {
			code = max(code, report(w, program, e, rename))
		}
		return code
	}
	fmt.Fprintf(w, "%s: error: %s\n", program, printable.Lines(strings.TrimRight(err.Error(), "\n")))
	code := ExitError
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Hint != "" {
			fmt.Fprintf(w, "%s: hint: %s\n", program, printable.Lines(rename(e.Hint)))
		}
		if e.Code != 0 {
			code = e.Code
		}
	}
	return code
}

// JSON prints v, indented, and a line end. Characters that a terminal must not
// get are escaped.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(printable.JSONWriter(w))
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Printable is [printable.Text]: foreign text cannot move the cursor, turn the
// direction of writing round or break a table.
func Printable(s string) string { return printable.Text(s) }

// Short is [span.Short].
func Short(d time.Duration) string { return span.Short(d) }
