// Package top shows a node live on a terminal of 80 columns and 24 lines or more:
// lists that can be sorted and searched, explanations, and the unban of a
// target behind a question. Functions give it the figures to show, so that it says
// the same as the commands.
package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// Options are the functions that a screen shows. All of them are required.
type Options struct {
	// Head gives the lines above every list.
	Head  func(ctx context.Context, width int) ([]string, error)
	Lists []List
	// Explain gives the text about a target, Unban lifts its bans and says which there
	// were. An [AskError] of it is a question; sure says that it was answered.
	Explain func(ctx context.Context, target string, width int) (string, error)
	Unban   func(ctx context.Context, target string, sure bool) (string, error)
	Every   time.Duration // how often it is loaded anew
	Painted bool          // with colours
}

// A List is one of the screen's lists.
type List struct {
	Name  string
	Sorts []string // ways to sort, the first is the usual one; none cannot be sorted
	// Load gives its rows, sorted, of those that a search selects.
	Load func(ctx context.Context, sort, search string) (Rows, error)
}

// Rows are the rows of a list, as they were when they were loaded.
type Rows struct {
	Count int
	// Print gives the heading and the rows from one to another, a line each. A list
	// without a heading gives "" for it.
	Print func(from, to, width int) (heading string, rows []string)
	// Target gives the target of a row, "" where it has none; Detail the text that
	// explains a row where it is no target.
	Target func(i int) string
	Detail func(i, width int) string
}

// An AskError is a question that a person has to answer first.
type AskError struct{ Question string }

func (e *AskError) Error() string { return e.Question }

// Run shows the screen until a person quits or ctx ends. The terminal is then as
// it was.
func Run(ctx context.Context, o Options, in io.Reader, out io.Writer) error {
	_, err := tea.NewProgram(newScreen(ctx, o), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("showing the screen: %w", err)
	}
	return nil
}

// The smallest screen that is drawn.
const (
	leastWidth  = 40
	leastHeight = 10
)

// loaded is an answer of the node.
type loaded struct {
	list int // for which it was asked
	sort string
	find string
	head []string
	rows Rows
	err  error
	took time.Duration
}

// told is a text about a row, done the outcome of an unban.
type (
	told struct {
		title, text string
		err         error
	}
	done struct {
		target, text string
		err          error
	}
	tick struct{ n int }
)

// A screen is the whole state of the display.
type screen struct {
	ctx           context.Context //nolint:containedctx // the library's commands take none
	o             Options
	width, height int

	list   int
	sort   map[int]int
	find   string
	typing bool // the search is being typed

	head    []string
	rows    Rows
	at, top int // the selected row, and the first one that is shown
	err     error
	took    time.Duration // of the last load
	ticks   int           // loads that were asked for; older answers' ticks are void

	title, text string // the explanation, "" for none
	scroll      int
	asking      string // the target that is to be unbanned
	question    string
	sure        bool
	says        string // the last line's news
}

func newScreen(ctx context.Context, o Options) *screen {
	return &screen{ctx: ctx, o: o, width: 80, height: 24, sort: map[int]int{}}
}

// Init implements [tea.Model].
func (s *screen) Init() tea.Cmd { return s.load() }

// load asks the node for the list that is shown.
func (s *screen) load() tea.Cmd {
	list, width, find, sort := s.list, s.width, s.find, s.sorting()
	return func() tea.Msg {
		began := time.Now()
		x := loaded{list: list, sort: sort, find: find}
		if x.head, x.err = s.o.Head(s.ctx, width); x.err == nil {
			x.rows, x.err = s.o.Lists[list].Load(s.ctx, sort, find)
		}
		x.took = time.Since(began)
		return x
	}
}

// sorting gives the way in which the list is sorted, "" for none.
func (s *screen) sorting() string {
	if sorts := s.o.Lists[s.list].Sorts; len(sorts) > 0 {
		return sorts[s.sort[s.list]%len(sorts)]
	}
	return ""
}

// loadShare is how much longer than it took a load is shown: where there are very
// many bans it takes a while, and may take a tenth of the node's time.
const loadShare = 10

// again waits before the next load.
func (s *screen) again() tea.Cmd {
	s.ticks++
	n := s.ticks
	return tea.Tick(max(s.o.Every, loadShare*s.took), func(time.Time) tea.Msg { return tick{n} })
}

// Update implements [tea.Model].
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
		s.keepInView()
		return s, s.load()
	case tick:
		if m.n != s.ticks {
			return s, nil
		}
		return s, s.load()
	case loaded:
		s.take(m)
		return s, s.again()
	case told:
		s.title, s.text, s.scroll = m.title, m.text, 0
		if m.err != nil {
			s.title, s.text, s.says = "", "", "error: "+m.err.Error()
		}
	case done:
		s.unbanned(m)
		return s, s.load()
	case tea.KeyPressMsg:
		return s, s.key(m.String())
	case tea.PasteMsg:
		if s.typing {
			s.find += clean(m.Content)
			s.at = 0
			return s, s.load()
		}
	}
	return s, nil
}

// take takes an answer, unless another list is shown by now.
func (s *screen) take(m loaded) {
	if m.list != s.list || m.find != s.find || m.sort != s.sorting() {
		return
	}
	s.took = m.took
	if s.err = m.err; m.err != nil {
		return // the last answer stays, and the last line says that it is old
	}
	selected := ""
	if s.rows.Target != nil && s.at < s.rows.Count {
		selected = s.rows.Target(s.at)
	}
	s.head, s.rows = m.head, m.rows
	// The same target stays selected where it is near: lists move.
	for _, i := range []int{s.at, s.at - 1, s.at + 1, s.at - 2, s.at + 2} {
		if selected != "" && i >= 0 && i < s.rows.Count && s.rows.Target(i) == selected {
			s.at = i
			break
		}
	}
	s.keepInView()
}

func (s *screen) unbanned(m done) {
	var ask *AskError
	switch {
	case errors.As(m.err, &ask):
		s.asking, s.question, s.sure = m.target, ask.Question, true
	case m.err != nil:
		s.says = "error: " + m.err.Error()
	default:
		s.says, s.title, s.text = m.text, "", ""
	}
}

// body is how many rows fit.
func (s *screen) body() int { return max(s.height-len(s.head)-4, 1) }

func (s *screen) keepInView() {
	s.at = max(min(s.at, s.rows.Count-1), 0)
	if s.at < s.top {
		s.top = s.at
	}
	if n := s.body(); s.at >= s.top+n {
		s.top = s.at - n + 1
	}
	s.top = max(min(s.top, s.rows.Count-s.body()), 0)
}

// clean takes line ends and control characters out of a text that is typed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, ansi.Strip(s))
}
