package policy

import (
	"fmt"
	"strings"
)

// A Fault is something wrong in a [Source].
type Fault struct {
	// Key is where: "topics.sshd.ban".
	Key string
	// Text is the expression, if the fault is inside one; Column is where in
	// it, from 1, and Width how many bytes are meant.
	Text          string
	Column, Width int
	// Message says what is wrong; Hint, if any, what to do.
	Message, Hint string
}

// Error gives "topics.sshd.ban:8: message".
func (f Fault) Error() string {
	if f.Column > 0 {
		return fmt.Sprintf("%s:%d: %s", f.Key, f.Column, f.Message)
	}
	return f.Key + ": " + f.Message
}

// Excerpt gives the expression with the faulty part underlined, two lines, or
// "" where there is none.
func (f Fault) Excerpt() string {
	if f.Column == 0 {
		return ""
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, f.Text)
	return "  " + text + "\n  " + strings.Repeat(" ", f.Column-1) + strings.Repeat("^", max(1, f.Width))
}

// Faults are all that is wrong with a [Source], at once.
type Faults []Fault

// Error gives one line a fault, with excerpts and hints.
func (fs Faults) Error() string {
	var b strings.Builder
	for i, f := range fs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.Error())
		if e := f.Excerpt(); e != "" {
			b.WriteString("\n" + e)
		}
		if f.Hint != "" {
			b.WriteString("\n  hint: " + f.Hint)
		}
	}
	return b.String()
}

// nearest gives the candidate that s was probably meant to be, or "".
func nearest(s string, candidates []string) string {
	best, bestAt := "", 3 // more than two edits is another word
	for _, c := range candidates {
		if d := distance(s, c); d < bestAt && d < len(c) {
			best, bestAt = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	const most = 64 // names are shorter; longer texts are no typing errors
	if len(a) > most || len(b) > most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
