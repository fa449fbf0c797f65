package top

import (
	"strconv"

	tea "charm.land/bubbletea/v2"
)

const help = `  q, ctrl+c      quit
  1 2 3 ...      a list; tab and shift+tab go through them
  up down j k    a row; pgup, pgdown, home, end
  enter, e       explain it: who, which rule, since when, what would lift it
  u              unban it here, after a question; no peer can ban it for 7 days
  s              sort by the next column
  /              show rows with a text alone; enter ends it, esc shows all again
  r              load anew
  esc            back

Everything is what agent status, bans, peers, history and explain say.`

// key carries a key out.
func (s *screen) key(k string) tea.Cmd {
	if k == "ctrl+c" {
		return tea.Quit
	}
	s.says = ""
	switch {
	case s.asking != "":
		return s.answer(k)
	case s.typing:
		return s.typed(k)
	case s.title != "":
		return s.read(k)
	}
	switch k {
	case "q":
		return tea.Quit
	case "tab", "right", "l":
		return s.show((s.list + 1) % len(s.o.Lists))
	case "shift+tab", "left", "h":
		return s.show((s.list + len(s.o.Lists) - 1) % len(s.o.Lists))
	case "s":
		s.sort[s.list]++
		s.at, s.top = 0, 0
		return s.load()
	case "/":
		s.typing = true
	case "esc":
		s.find = ""
		return s.load()
	case "r":
		return s.load()
	case "?":
		s.title, s.text, s.scroll = "Keys", help, 0
	case "enter", "e":
		return s.explain()
	case "u":
		if t := s.target(); t != "" {
			s.ask(t)
		}
	default:
		if n, err := strconv.Atoi(k); err == nil && n >= 1 && n <= len(s.o.Lists) {
			return s.show(n - 1)
		}
		s.at = moved(k, s.at, s.rows.Count, s.body())
		s.keepInView()
	}
	return nil
}

// moved gives the place to which a key moves.
func moved(k string, at, count, page int) int {
	switch k {
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "pgup", "b":
		at -= page
	case "pgdown", "space", "f":
		at += page
	case "home", "g":
		at = 0
	case "end", "G":
		at = count - 1
	}
	return max(min(at, count-1), 0)
}

func (s *screen) show(list int) tea.Cmd {
	s.list, s.at, s.top, s.find, s.rows, s.err = list, 0, 0, "", Rows{}, nil
	return s.load()
}

// target gives the target of the selected row, "" where it has none.
func (s *screen) target() string {
	if s.rows.Target == nil || s.at >= s.rows.Count {
		return ""
	}
	return s.rows.Target(s.at)
}

func (s *screen) explain() tea.Cmd {
	width := s.width
	if t := s.target(); t != "" {
		return func() tea.Msg {
			text, err := s.o.Explain(s.ctx, t, width)
			return told{t, text, err}
		}
	}
	if s.rows.Detail != nil && s.at < s.rows.Count {
		s.title, s.text, s.scroll = s.o.Lists[s.list].Name, s.rows.Detail(s.at, width), 0
	}
	return nil
}

// read moves in a text.
func (s *screen) read(k string) tea.Cmd {
	switch k {
	case "q", "esc", "enter", "backspace":
		s.title, s.text = "", ""
	case "u":
		if s.title == s.target() && s.title != "" {
			s.ask(s.title)
		}
	default:
		s.scroll = min(moved(k, s.scroll, len(lines(s.text)), s.body()), max(len(lines(s.text))-s.body(), 0))
	}
	return nil
}

func (s *screen) ask(target string) {
	s.asking, s.sure = target, false
	s.question = "unban " + target + " here, so that no peer can ban it for 7 days?"
}

// answer carries the question out only for a y.
func (s *screen) answer(k string) tea.Cmd {
	t, sure := s.asking, s.sure
	s.asking, s.question = "", ""
	if k != "y" && k != "Y" {
		s.says = "nothing was changed"
		return nil
	}
	return func() tea.Msg {
		text, err := s.o.Unban(s.ctx, t, sure)
		return done{t, text, err}
	}
}

// typed takes a key of the search.
func (s *screen) typed(k string) tea.Cmd {
	r := []rune(s.find)
	switch k {
	case "enter":
		s.typing = false
		return nil
	case "esc":
		s.typing, s.find = false, ""
	case "backspace":
		s.find = string(r[:max(len(r)-1, 0)])
	case "space":
		s.find += " "
	default:
		if len([]rune(k)) != 1 || len(r) >= 60 {
			return nil
		}
		s.find += clean(k)
	}
	s.at, s.top = 0, 0
	return s.load()
}
