package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// View implements [tea.Model].
func (s *screen) View() tea.View {
	v := tea.NewView(s.draw())
	v.AltScreen = true
	return v
}

// Styles by SGR; reverse and bold are no colours and stay without them.
const (
	reset, bold, reverse = "\x1b[0m", "\x1b[1m", "\x1b[7m"
	red                  = "\x1b[31m"
)

func (s *screen) paint(style, text string) string {
	if style == red && !s.o.Painted {
		return text
	}
	return style + text + reset
}

// draw gives the screen's lines, as many as it has.
func (s *screen) draw() string {
	if s.width < leastWidth || s.height < leastHeight {
		return ansi.Truncate(fmt.Sprintf("at least %d columns and %d lines, please; q quits", leastWidth, leastHeight), max(s.width, 1), "")
	}
	var out []string
	for _, l := range s.head {
		out = append(out, s.fit(l))
	}
	out = append(out, s.tabs())
	if s.title != "" {
		out = append(out, s.paint(bold, s.fit(s.title)))
		text := lines(s.text)
		out = append(out, s.fitAll(text[min(s.scroll, len(text)):], s.body())...)
	} else {
		to := min(s.top+s.body(), s.rows.Count)
		heading, rows := "", []string(nil)
		if s.rows.Print != nil {
			heading, rows = s.rows.Print(s.top, to, s.width)
		}
		if heading == "" && s.rows.Count == 0 && s.rows.Print != nil && s.err == nil {
			heading = "nothing"
		}
		out = append(out, s.paint(bold, s.fit(heading)))
		for i, row := range rows {
			if row = s.fit(row); s.top+i == s.at {
				row = s.paint(reverse, row+strings.Repeat(" ", max(s.width-ansi.StringWidth(row), 0)))
			}
			out = append(out, row)
		}
	}
	for len(out) < s.height-2 {
		out = append(out, "")
	}
	return strings.Join(append(out[:s.height-2], s.news(), s.fit(s.keys())), "\n")
}

// tabs is the line with the lists' names.
func (s *screen) tabs() string {
	var b strings.Builder
	for i, l := range s.o.Lists {
		name := fmt.Sprintf(" %d %s ", i+1, l.Name)
		if i == s.list {
			name = s.paint(reverse, name)
		}
		b.WriteString(name)
	}
	return ansi.Truncate(b.String(), s.width, "…")
}

// news is the line with a question, a search, a fault, the outcome of a key, or
// where in the list one is.
func (s *screen) news() string {
	switch {
	case s.asking != "":
		return s.paint(bold, s.fit(s.question+" y or n"))
	case s.typing:
		return s.fit("rows with: " + s.find + "_")
	case s.says != "":
		return s.fit(s.says)
	case s.err != nil:
		return s.paint(red, s.fit("error: "+s.err.Error()))
	case s.title != "" || s.rows.Count == 0 && s.find == "":
		return ""
	}
	place := fmt.Sprintf("%d of %d", min(s.at+1, s.rows.Count), s.rows.Count)
	if by := s.sorting(); by != "" {
		place += ", by " + by
	}
	if s.find != "" {
		place += ", with " + s.find
	}
	return s.fit(place)
}

func (s *screen) keys() string {
	if s.title != "" {
		return "esc back  up/down move  u unban  ctrl+c quit"
	}
	return "q quit  tab list  enter explain  u unban  s sort  / search  ? keys"
}

// fit makes one line of a text, no longer than the screen is wide. What comes from
// outside was made printable before; escape sequences that are left go here.
func (s *screen) fit(l string) string {
	return ansi.Truncate(clean(l), s.width, "…")
}

func (s *screen) fitAll(list []string, most int) []string {
	list = list[:min(len(list), most)]
	out := make([]string, 0, len(list))
	for _, l := range list {
		out = append(out, s.fit(l))
	}
	return out
}

func lines(s string) []string { return strings.Split(strings.TrimRight(s, "\n"), "\n") }
