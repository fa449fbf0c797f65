package strict

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// A Fault is something wrong in a file, or in a value of one.
type Fault struct {
	File string // "" where the value's file is not known
	// Line and Column count from 1; 0 when only the file is known. Without a
	// file Column is the place within the value.
	Line, Column int
	// Path is the value's dotted path: "topics.sshd.ban"; may be empty.
	Path string
	Text string
	// Excerpt shows the place with the part that is meant underlined; may be
	// empty.
	Excerpt string
	// Hint names the remedy; may be empty.
	Hint string

	cause error
}

// Error gives "file:line:column: path: text", and the excerpt below it.
func (f *Fault) Error() string {
	var b strings.Builder
	switch {
	case f.File != "" && f.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", f.File, f.Line, max(f.Column, 1))
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	switch {
	case f.Path != "" && f.File == "" && f.Column > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.Path, f.Column)
	case f.Path != "":
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Text)
	if f.Excerpt != "" {
		b.WriteString("\n" + f.Excerpt)
	}
	return b.String()
}

// Unwrap gives the error from which the fault was made, if any.
func (f *Fault) Unwrap() error { return f.cause }

// Faults are all that is wrong, at once.
type Faults []*Fault

// Error gives the faults one below the other, with excerpts and hints.
func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Error())
		if f.Hint != "" {
			b.WriteString("\n  hint: " + f.Hint)
		}
	}
	return b.String()
}

// Unwrap makes each fault visible to [errors.As].
func (fs Faults) Unwrap() []error {
	all := make([]error, len(fs))
	for i, f := range fs {
		all[i] = f
	}
	return all
}

// sorted puts the faults of one file into the order of their places.
func (fs Faults) sorted() Faults {
	slices.SortStableFunc(fs, func(a, b *Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return fs
}

// Underline shows a text that is one value, with width bytes from a column
// (from 1) underlined.
func Underline(text string, column, width int) string {
	return "  " + printable(text) + "\n  " + strings.Repeat(" ", column-1) + strings.Repeat("^", max(1, width))
}

// maxLine is how much of a line an excerpt shows; maxText how much of a text.
const (
	maxLine = 120
	maxText = 200
)

// excerpt shows a line of a file and the one above it, with width bytes from a
// column underlined.
func excerpt(text []byte, line, column, width int) string {
	lines := bytes.Split(text[:endOfLine(text, line)], []byte{'\n'})
	if line < 1 || line > len(lines) {
		return ""
	}
	margin := len(fmt.Sprint(line))
	var b strings.Builder
	show := func(n, from int) {
		l := lines[n-1][min(from, len(lines[n-1])):]
		fmt.Fprintf(&b, "%*d| %s\n", margin, n, printable(string(l[:min(len(l), maxLine)])))
	}
	from := 0
	if column > maxLine/2 {
		from = column - maxLine/2
	}
	if line > 1 && from == 0 {
		show(line-1, 0)
	}
	show(line, from)
	room := max(1, min(len(lines[line-1]), from+maxLine)-(column-1))
	fmt.Fprintf(&b, "%*s| %s%s", margin, "", strings.Repeat(" ", max(0, column-1-from)), strings.Repeat("~", max(1, min(width, room))))
	return b.String()
}

// endOfLine is the offset at which a line ends.
func endOfLine(text []byte, line int) int {
	at := lineStart(text, line)
	if end := bytes.IndexByte(text[at:], '\n'); end >= 0 {
		return at + end
	}
	return len(text)
}

// underlined is how many bytes the library underlines.
func underlined(e *toml.DecodeError) int {
	human := e.String()
	i := strings.LastIndex(human, "| ")
	for ; i >= 0; i = strings.LastIndex(human[:i], "| ") {
		marks := strings.TrimLeft(human[i+2:], " ")
		if n := len(marks) - len(strings.TrimLeft(marks, "~")); n > 0 {
			return n
		}
	}
	return 1
}

// printable replaces bytes that would move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// clip bounds foreign text that a fault repeats.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return printable(s)
}
