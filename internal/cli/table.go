package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Table prints aligned columns. On a terminal it is as wide as that: cells of
// the columns that may be cut are, and then the last columns left out.
type Table struct {
	w       io.Writer
	heading bool
	rows    [][]string
	colours map[[2]int]Colour
	cut     []string
	least   map[string]int
}

// leastCut is how short a column is cut at most, in characters.
const leastCut = 12

// gap stands between two columns.
const gap = 2

// NewTable begins a table with a heading, if any. One without is never cut.
func NewTable(w io.Writer, heading ...string) *Table {
	t := &Table{w: w, heading: len(heading) > 0, colours: map[[2]int]Colour{}, least: map[string]int{}}
	if t.heading {
		t.Row(heading...)
	}
	return t
}

// Cut names the columns whose cells may be cut, those first that matter least.
// Without it, it is the last one.
func (t *Table) Cut(headings ...string) { t.cut = headings }

// Least says how many characters of a column that may be cut are shown at least;
// columns at the end are left out before.
func (t *Table) Least(heading string, characters int) { t.least[heading] = characters }

// Row adds a row. Cells are made printable: foreign text must not
// reach a terminal as control characters.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = Printable(c)
	}
	t.rows = append(t.rows, row)
}

// Paint gives the cell of the last row in a column, from 0, a colour.
func (t *Table) Paint(column int, c Colour) { t.colours[[2]int{len(t.rows) - 1, column}] = c }

// Flush prints the rows.
func (t *Table) Flush() error {
	widths := t.widths()
	left := ""
	if screen := Width(t.w); screen > 0 && t.heading {
		if shown := t.fit(widths, screen); shown < len(widths) {
			left = strings.Join(t.rows[0][shown:], ", ")
			widths = widths[:shown]
		}
	}
	for i, row := range t.rows {
		var b strings.Builder
		row = row[:min(len(row), len(widths))]
		for len(row) > 0 && row[len(row)-1] == "" {
			row = row[:len(row)-1]
		}
		for k, cell := range row {
			cell = short(cell, widths[k])
			space := widths[k] - utf8.RuneCountInString(cell) + gap
			if c, ok := t.colours[[2]int{i, k}]; ok {
				cell = Paint(t.w, c, cell)
			}
			b.WriteString(cell)
			if k < len(row)-1 {
				b.WriteString(strings.Repeat(" ", space))
			}
		}
		if _, err := fmt.Fprintln(t.w, b.String()); err != nil {
			return err
		}
	}
	if left != "" {
		_, err := fmt.Fprintf(t.w, "(with --wide: %s)\n", left)
		return err
	}
	return nil
}

// widths gives the width of each column.
func (t *Table) widths() (out []int) {
	for _, row := range t.rows {
		for k, cell := range row {
			if k == len(out) {
				out = append(out, 0)
			}
			out[k] = max(out[k], utf8.RuneCountInString(cell))
		}
	}
	return out
}

// fit shortens widths until the columns fit on a screen, and says how many are
// shown.
func (t *Table) fit(widths []int, screen int) (shown int) {
	cut := t.cut
	if cut == nil {
		cut = t.rows[0][len(t.rows[0])-1:]
	}
	for shown = len(widths); ; shown-- {
		try, over := slices.Clone(widths), -gap-screen
		for _, w := range try[:shown] {
			over += w + gap
		}
		for _, name := range cut {
			if k := slices.Index(t.rows[0], name); k >= 0 && k < shown && over > 0 {
				less := min(over, max(try[k]-max(leastCut, t.least[name], utf8.RuneCountInString(name)), 0))
				try[k], over = try[k]-less, over-less
			}
		}
		if over <= 0 || shown == 1 {
			copy(widths, try)
			return shown
		}
	}
}

// short cuts a text to a number of characters.
func short(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	runes := []rune(s)
	return string(runes[:max(most-1, 0)]) + "…"
}

// Wrap gives a text in lines that w shows whole, broken between words; those
// after the first begin with an indent. taken is how much of the first line is
// written already. Words longer than a line stay whole.
func Wrap(w io.Writer, taken int, indent, text string) string {
	screen := Width(w)
	if screen <= 0 {
		return text
	}
	var b strings.Builder
	column := taken
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > screen:
			b.WriteString("\n" + indent)
			column = utf8.RuneCountInString(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
